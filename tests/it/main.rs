//! The whole proxy, from outside: real sockets on both sides, a real state folder, the real composition root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "a test panics to fail, and a test binary has no readers of its interface"
)]

mod affinity;
mod answers;
mod balancer;
mod basics;
mod before;
mod beside;
mod bodies;
mod corpus;
mod failover;
mod gates;
mod grpc;
mod guarding;
mod harness;
mod headers;
mod hold;
mod http2;
mod http2_ends;
mod http2_streams;
mod interim;
mod lifecycle;
mod limits;
mod operating;
mod preview;
mod queue;
mod resilience;
mod routing;
mod rules;
mod scenarios;
mod slow;
mod smuggling;
mod streams;
mod switching;
mod tls;
mod upstream;
mod upstream_h2;
mod upstream_tls;

// Apart: what runs the real command.
mod deploy;
mod deploy_ways;
mod init;
