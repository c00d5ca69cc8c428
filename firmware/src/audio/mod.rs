//! Decoder thread, ring, the callback's body: orders in, sound out.
