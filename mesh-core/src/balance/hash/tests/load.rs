//! Bounded load.

use super::*;
use crate::{Outcome, balance::Config as BalanceConfig};

fn in_flight(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| u64::from(node.load.active())).sum()
}

fn bounded(table: &Table, hash: u64, nodes: &[Node]) -> usize {
    table.pick(Timestamp::ZERO, hash, nodes, || in_flight(nodes), |_| false).unwrap()
}

/// All send the same key: without a bound one endpoint carries it all.
#[test]
fn a_hot_key_overflows_to_the_same_substitutes() {
    for config in shapes() {
        let names = names(10);
        let table = Table::new(&config.with_balance_factor(150).unwrap(), &equal(&names));
        let run = |table: &Table| {
            let nodes = nodes(10);
            let order: Vec<usize> = (0..100)
                .map(|_| {
                    let index = bounded(table, 77, &nodes);
                    let _ = nodes[index].load.on_start(Timestamp::ZERO);
                    index
                })
                .collect();
            let most = nodes.iter().map(|node| node.load.active()).max();
            (order, most.unwrap())
        };
        let (order, most) = run(&table);
        assert_eq!(order[0], table.owner(77, 0).unwrap());
        // 101 × 1.5 / 10 is 15.15: 16 slots, and one more is let in before it is full.
        assert!(most <= 17, "{most}");
        assert_eq!(run(&table).0, order, "the substitutes are always the same");

        let (_, most) = run(&Table::new(&config, &equal(&names)));
        assert_eq!(most, 100, "the check sees a bound that is not there");
    }
}

#[test]
fn who_has_room_again_gets_its_key_back() {
    let table = Table::new(&Config::maglev().with_balance_factor(125).unwrap(), &equal(&names(4)));
    let nodes = nodes(4);
    let owner = table.owner(5, 0).unwrap();
    let started: Vec<_> = (0..3).map(|_| nodes[owner].load.on_start(Timestamp::ZERO)).collect();
    assert_ne!(bounded(&table, 5, &nodes), owner, "(3 + 1) × 1.25 / 4 is 2 slots, and 3 in flight");
    for start in started {
        let config = BalanceConfig::default();
        nodes[owner].load.on_end(&config, Timestamp::ZERO, start, Outcome::Success);
    }
    assert_eq!(bounded(&table, 5, &nodes), owner);
}

#[test]
fn a_substitute_is_available_and_of_all_full_ones_the_least_full() {
    let table = Table::new(&Config::ring().with_balance_factor(100).unwrap(), &equal(&names(6)));
    let mut nodes = nodes(6);
    for (index, node) in nodes.iter().enumerate() {
        for _ in 0..=index {
            let _ = node.load.on_start(Timestamp::ZERO);
        }
    }
    for hash in 0..300 {
        // The sum is not theirs: others have requests too, or a counter lags behind.
        let pick =
            |nodes: &[Node]| table.pick(Timestamp::ZERO, hash, nodes, || 0, |_| false).unwrap();
        assert_eq!(pick(&nodes), 0, "one in one slot is not full");
        nodes[0].down = true;
        assert_eq!(pick(&nodes), 1, "two in one slot");
        nodes[0].down = false;
    }
}

#[test]
fn heavier_ones_have_more_slots() {
    let names = names(2);
    let config = Config::maglev().with_balance_factor(100).unwrap();
    let table = Table::new(&config, &weighted(&names, &[1, 9]));
    let nodes = nodes(2);
    let mut rng = SplitMix64::new(2);
    for _ in 0..1_000 {
        let index = bounded(&table, rng.next_u64(), &nodes);
        let _ = nodes[index].load.on_start(Timestamp::ZERO);
    }
    assert!(nodes[0].load.active() <= 102, "{}", nodes[0].load.active());
    assert!(nodes[1].load.active() <= 902, "{}", nodes[1].load.active());
}

/// Envoy asks the others in this order (`BoundedLoadHashingLoadBalancer`), worked out by its algorithm with a whole
/// list: see the test of the probes. Here that the table asks in that order.
#[test]
fn the_order_of_the_substitutes_is_the_probes() {
    let table = Table::new(&Config::ring().with_balance_factor(100).unwrap(), &equal(&names(20)));
    for hash in 0..200 {
        let nodes = nodes(20);
        let owner = table.owner(hash, 0).unwrap();
        let expected = bounded::Probes::new(hash, 20).filter(|&index| index != owner);
        let mut seen = Vec::new();
        while seen.len() < 20 {
            // Who is asked gets more than its slots of a sum that stays 0.
            let index = table.pick(Timestamp::ZERO, hash, &nodes, || 0, |_| false).unwrap();
            if !seen.contains(&index) {
                seen.push(index);
            }
            let _ = nodes[index].load.on_start(Timestamp::ZERO);
        }
        assert!(seen.iter().copied().eq([owner].into_iter().chain(expected)), "{hash}");
    }
}
