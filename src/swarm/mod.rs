//! The swarm: a libp2p node over our own QUIC transport. Connections, identities and streams; knows no packages.
