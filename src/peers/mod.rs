//! Peers: who is near, what they gave, how fast, and who lied.
