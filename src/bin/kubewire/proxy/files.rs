//! `--www`: in flow paths below a prefix, out come files of a directory, and nothing outside it.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::CONTENT_TYPE};
use percent_encoding::percent_decode_str;

/// Bytes of a file that is served: 64 MiB.
const FILE: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// With a slash at both ends.
    prefix: String,
}

impl Files {
    /// The directory must be there.
    pub(super) fn new(root: &Path, prefix: &str) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        let prefix = match prefix.trim_matches('/') {
            "" => "/".to_owned(),
            prefix => format!("/{prefix}/"),
        };
        Ok(Self { root, prefix })
    }

    /// What is below the prefix of a path; `None` if it is not below.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&self.prefix)
    }

    /// The file of what is below the prefix, or why there is none.
    pub(super) async fn answer(&self, method: &Method, below: &str) -> Response<Bytes> {
        let refuse = |status: StatusCode, why: &'static str| {
            let mut response = Response::new(Bytes::from_static(why.as_bytes()));
            *response.status_mut() = status;
            response
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "files can be read\n");
        }
        let not_found = || refuse(StatusCode::NOT_FOUND, "404 page not found\n");
        let Some((file, length)) = self.find(below).await else {
            return not_found();
        };
        if length > FILE {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large\n");
        }
        let Ok(content) = tokio::fs::read(&file).await else {
            return not_found();
        };
        let mut response = Response::new(Bytes::from(content));
        let kind = http::HeaderValue::from_static(kind(&file));
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// The file that is meant, and its length, unless it is elsewhere.
    async fn find(&self, below: &str) -> Option<(PathBuf, u64)> {
        let below = percent_decode_str(below).decode_utf8().ok()?;
        let below = Path::new(&*below);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !below.components().all(plain) {
            return None;
        }
        let mut file = tokio::fs::canonicalize(self.root.join(below)).await.ok()?;
        if file.is_dir() {
            file.push("index.html");
        }
        // A link may lead out of the directory.
        let file = tokio::fs::canonicalize(&file).await.ok()?;
        let metadata = tokio::fs::metadata(&file).await.ok()?;
        let is_here = metadata.is_file() && file.starts_with(&self.root);
        is_here.then_some((file, metadata.len()))
    }
}

fn kind(file: &Path) -> &'static str {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "txt" | "md" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}
