//! Blocks and chunks to and from peers: bitswap for everybody, dpm's own protocol between dpm nodes.
