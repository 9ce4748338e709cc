//! Every integration test, in one binary: whole nodes in this process, fakes at the socket, real clients.

#![allow(unreachable_pub, missing_docs, reason = "tests are nobody's interface")]

mod apt;
mod bitswap;
mod carry;
mod circle;
mod cli;
mod clients;
mod corpora;
mod crash;
mod disk;
mod edges;
mod far;
mod faults_clients;
mod faults_pages;
mod faults_upstream;
mod flights;
mod freshness;
mod guard;
mod hedge;
mod house;
mod ipfs;
mod lan;
mod liars;
mod near;
mod oci;
mod office;
mod pypi;
#[cfg(feature = "rooms")]
mod room;
mod rough;
mod smoke;
mod stand_in;
mod store;
mod support;
