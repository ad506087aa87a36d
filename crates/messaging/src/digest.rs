//! The one stable hash: SHA-256, in the forms in which it is stored and published. The same bytes have the same digest in
//! all processes and versions.

use sha2::{Digest as _, Sha256};

/// A SHA-256 of `parts`, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let hasher = parts.iter().fold(Sha256::new(), Sha256::chain_update);
    Digest(hasher.finalize().into())
}

/// 256 bits; displayed as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The first `N` bytes, at most 32.
    #[must_use]
    pub fn first<const N: usize>(&self) -> [u8; N] {
        *self.0.first_chunk().expect("N is at most 32")
    }

    /// A name that says how it was made: `sha256:<hex>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("sha256:{self}")
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of FIPS 180-4; stored rows and message ids depend on them.
    #[test]
    fn a_digest_is_the_sha_256_of_all_its_parts() {
        let whole = sha256(&[b"abc"]);
        assert_eq!(
            whole.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(sha256(&[b"a", b"", b"bc"]), whole);
        assert_eq!(whole.first(), [0xba, 0x78, 0x16]);
        assert!(whole.name().starts_with("sha256:ba7816bf"));
    }
}
