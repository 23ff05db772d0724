//! Certificates and keys: a file or inline bytes, read when a connection needs them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretSlice;

use super::wrong;
use crate::Result;

/// PEM text of a certificate authority, a certificate or a key, and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    /// What error texts call it.
    pub(crate) origin: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Inline(Arc<SecretSlice<u8>>),
}

/// A certificate chain and its private key.
pub(crate) type Identity = (Material, Material);

impl Material {
    pub(crate) fn file(origin: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            origin: format!("{} ({})", origin.into(), path.display()),
            place: Place::File(path),
        }
    }

    pub(crate) fn inline(origin: impl Into<String>, pem: Vec<u8>) -> Self {
        Self::secret(origin, Arc::new(pem.into()))
    }

    pub(crate) fn secret(origin: impl Into<String>, pem: Arc<SecretSlice<u8>>) -> Self {
        Self {
            origin: origin.into(),
            place: Place::Inline(pem),
        }
    }

    /// The PEM text; a file is read each time.
    pub(crate) fn read(&self) -> Result<Arc<SecretSlice<u8>>> {
        match &self.place {
            Place::Inline(pem) => Ok(Arc::clone(pem)),
            Place::File(path) => match fs::read(path) {
                Ok(pem) => Ok(Arc::new(pem.into())),
                Err(error) => Err(self.wrong(unreadable(path, &error))),
            },
        }
    }

    /// Whether it can change.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// As it is now.
    pub(crate) fn frozen(&self) -> Result<Self> {
        Ok(Self::secret(self.origin.as_str(), self.read()?))
    }

    /// A configuration error about this material.
    pub(crate) fn wrong(&self, problem: impl Into<String>) -> crate::Error {
        wrong(self.origin.as_str(), problem)
    }
}

/// Decodes inline data as Go does: padded standard base64 in which line ends do not count.
pub(crate) fn from_base64(origin: &str, data: &str) -> Result<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let data: String = data.split_ascii_whitespace().collect();
    STANDARD
        .decode(data)
        .map_err(|_| wrong(origin, "is not base64"))
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_names_it() {
        let file = Material::file("the client key's file", "/etc/k.pem").wrong("is empty");
        assert!(file.to_string().contains("(/etc/k.pem)"), "{file}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pem");
        fs::write(&path, "").unwrap();
        let frozen = Material::file("the key's file", &path).frozen().unwrap();
        let path = path.display().to_string();
        assert!(frozen.origin.contains(&path), "also once it is read");
        let inline = Material::inline("the client key's PEM", Vec::new()).wrong("is empty");
        assert!(!inline.to_string().contains('('), "{inline}");
    }
}
