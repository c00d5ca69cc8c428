//! What must survive a power cut, and how it is merged back.
//!
//! The store keeps keys and values without knowing what they mean; the core decides both.

use alloc::vec::Vec;

/// One change of the saved state: a key and its new value, or none to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Vec<u8>,
    /// The new value; none deletes the key.
    pub value: Option<Vec<u8>>,
}
