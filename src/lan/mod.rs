//! The local network: who is near (mDNS), and what this box tells people's machines about itself.
