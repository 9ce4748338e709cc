//! Every integration test, in one binary: whole nodes in this process, fakes at the socket, real clients.

#![allow(unreachable_pub, missing_docs, reason = "tests are nobody's interface")]

mod cli;
mod clients;
mod crash;
mod disk;
mod edges;
mod faults_clients;
mod faults_pages;
mod faults_upstream;
mod flights;
mod freshness;
mod guard;
mod house;
mod pypi;
mod smoke;
mod store;
mod support;
