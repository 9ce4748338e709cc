//! Every integration test, in one binary: whole nodes in this process, fakes at the socket, real clients.

#![allow(unreachable_pub, missing_docs, reason = "tests are nobody's interface")]

mod clients;
mod house;
mod smoke;
mod support;
