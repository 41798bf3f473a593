//! The gate under load. Every interleaving of one word is tried in `tests/loom_claim.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;

use futures_util::FutureExt;

use super::*;
use crate::config::{Address, EndpointAddress};
use crate::rollout::Color;
use crate::upstream::{EndpointKey, Target};

fn endpoint() -> Arc<Endpoint> {
    let address = "127.0.0.1:8001".parse().unwrap();
    Endpoint::new(EndpointKey {
        app: "shop".into(),
        service: "web".into(),
        color: Color::Green,
        address: EndpointAddress::plain(Address::Ip(address)),
        target: Target::Tcp(address),
        tls: None,
        preamble: None,
    })
}

fn notified(drained: &Notify) -> bool {
    drained.notified().now_or_never().is_some()
}

#[test]
fn a_claim_holds_the_drain_until_it_is_dropped() {
    let drained = Arc::new(Notify::new());
    let gate = Gate::open(&endpoint(), 2, &drained);
    let (first, second) = (gate.claim(0).unwrap(), gate.claim(1).unwrap());
    assert_eq!((gate.in_flight(), gate.in_flight_on(0)), (2, 1));
    assert_eq!(first.gate(), gate.id);
    assert_eq!(first.endpoint().key, second.endpoint().key);
    assert!(gate.claim(2).is_none(), "there is no third worker");

    gate.close();
    assert!(gate.claim(0).is_none());
    assert!(!notified(&drained), "both claims are still held");
    drop(first);
    assert!(notified(&drained), "worker 0 has finished");
    assert_eq!(gate.in_flight(), 1);
    drop(second);
    assert!(notified(&drained));
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn an_open_gate_never_says_drained() {
    let drained = Arc::new(Notify::new());
    let gate = Gate::open(&endpoint(), 1, &drained);
    drop(gate.claim(0).unwrap());
    assert!(!notified(&drained));
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn a_refused_claim_reports_too() {
    // Between its add and its undo a drain may have looked and seen one; so it must be told to look again.
    let drained = Arc::new(Notify::new());
    let gate = Gate::open(&endpoint(), 1, &drained);
    gate.close();
    assert!(gate.claim(0).is_none());
    assert!(notified(&drained));
    assert_eq!(gate.in_flight(), 0);
}

/// Threads claim and release while another closes: whoever gets in does so before the drain is over.
#[test]
fn nobody_is_inside_a_drained_gate() {
    const WORKERS: usize = 4;
    const THREADS: usize = 8;
    for _ in 0..60 {
        let drained = Arc::new(Notify::new());
        let gate = Gate::open(&endpoint(), WORKERS, &drained);
        let published = AtomicBool::new(false);
        let drain_over = AtomicBool::new(false);
        let inside = AtomicI64::new(0);
        let start = Barrier::new(THREADS + 1);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (gate, published, drain_over, inside, start) =
                    (&gate, &published, &drain_over, &inside, &start);
                scope.spawn(move || {
                    start.wait();
                    // Two threads share a worker's word: more than ever happens.
                    while let Some(claim) = gate.claim(thread % WORKERS) {
                        inside.fetch_add(1, SeqCst);
                        assert!(!drain_over.load(SeqCst), "a claim on a drained gate");
                        inside.fetch_sub(1, SeqCst);
                        drop(claim);
                    }
                    assert!(published.load(SeqCst), "refused, but there is no newer table");
                    assert!(
                        gate.claim(thread % WORKERS).is_none(),
                        "a closed gate opened again"
                    );
                });
            }
            start.wait();
            thread::yield_now();
            published.store(true, SeqCst);
            gate.close();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                // As the controller does it: look, and sleep until told to look again.
                while gate.in_flight() > 0 {
                    drained.notified().await;
                }
            });
            assert_eq!(inside.load(SeqCst), 0, "drained with a request inside");
            drain_over.store(true, SeqCst);
        });
        assert_eq!(gate.in_flight(), 0);
    }
}
