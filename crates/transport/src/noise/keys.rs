//! The primitives that `snow` is given: X25519 by aws-lc, the rest by ring.

use aws_lc_rs::{
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    error::Unspecified,
    rand,
};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, RingResolver},
    types::{Cipher, Dh, Hash, Random},
};
use std::sync::Arc;

const KEY_LEN: usize = 32;

/// A key pair of X25519. Its public key is computed once.
pub struct StaticKey {
    private: PrivateKey,
    public: [u8; KEY_LEN],
}

impl StaticKey {
    /// Bytes to pass where `snow` requires a private key. They are never used, because [`Resolver`] holds the real key.
    pub const PLACEHOLDER: &[u8] = &[0; KEY_LEN];

    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        let private = PrivateKey::generate(&X25519)?;
        let public = private.compute_public_key()?.as_ref().try_into().map_err(|_| Unspecified)?;
        Ok(Self { private, public })
    }

    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

/// Gives `snow` the primitives of one handshake.
pub struct Resolver(Arc<StaticKey>);

impl Resolver {
    pub fn new(key: Arc<StaticKey>) -> Self {
        Self(key)
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SystemRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519Pair { key: self.0.clone() }) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        rand::fill(out).map_err(|_| Error::Rng)
    }
}

/// Begins as the static key of this process; [`Dh::generate`] replaces it with a new ephemeral key.
struct X25519Pair {
    key: Arc<StaticKey>,
}

impl Dh for X25519Pair {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    /// Does nothing: `snow` only ever sets the static key, and this already is the static key.
    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        self.key = Arc::new(StaticKey::generate().map_err(|_| Error::Rng)?);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.key.public()
    }

    /// `snow` reads the private key only when it generates a key pair for its caller to keep. That never happens here.
    fn privkey(&self) -> &[u8] {
        StaticKey::PLACEHOLDER
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.get(..KEY_LEN).ok_or(Error::Dh)?;
        let out = out.get_mut(..KEY_LEN).ok_or(Error::Dh)?;
        // aws-lc refuses points of a low order, which make a secret that everybody knows.
        agree(&self.key.private, UnparsedPublicKey::new(&X25519, public), Error::Dh, |secret| {
            out.copy_from_slice(secret);
            Ok(())
        })
    }
}
