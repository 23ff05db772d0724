//! The cryptography of TLS: in flow the features of the build, out comes what rustls computes with.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// That of the feature `aws-lc-rs`, or else of `ring`.
///
/// Never the process's default provider: another crate may have installed one, or none; and none
/// is installed from here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Arc::new(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    return compile_error!(
        "kubewire's features `client` and `testing` need cryptography for TLS: \
         turn on `ring`, as the default features do, or `aws-lc-rs`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_choose_and_the_process_has_no_say() {
        let provider = format!("{:?}", provider().secure_random);
        assert_eq!(provider.contains("AwsLc"), cfg!(feature = "aws-lc-rs"));
        assert!(CryptoProvider::get_default().is_none());
    }
}
