//! Messages as they stand on the wire: bitswap (protobuf) and dpm's own (CBOR), and the varints that frame them.
//!
//! Pure: bytes in, messages out, and back. Knows no sockets; panics on no input.
