//! The endpoints that one client uses, of all that are listed.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_client_uses_its_share_and_who_goes_is_replaced() {
    let endpoints = || (10..40).map(|n| Endpoint::new(format!("e{n}")));
    let world = World::default();
    let mut all = BTreeMap::new();
    for seed in 0..20 {
        let share = Share::Random(Random::new(4, seed).unwrap());
        let upstream = drive!(shop(endpoints()).subsetting(share), world);
        assert_eq!(upstream.status().len(), 4);
        for _ in 0..40 {
            ask!(upstream).unwrap();
        }
        let asked = world.asked();
        assert_eq!(asked.values().copied().collect::<Vec<_>>(), [10; 4]);

        let gone = asked.keys().next().unwrap().clone();
        upstream.remove_endpoint(&gone);
        let now: Vec<_> =
            upstream.status().iter().map(|one| one.endpoint.address().clone()).collect();
        assert_eq!(now.len(), 4);
        assert_eq!(now.iter().filter(|one| asked.contains_key(&***one)).count(), 3);
        // What is learnt of those that stay is kept.
        assert_eq!(upstream.status().iter().filter(|one| one.successes == 10).count(), 3);
        asked.into_keys().for_each(|name| *all.entry(name).or_insert(0) += 1);

        let config = upstream.config().with_subsetting(None);
        upstream.set_config(config).unwrap();
        assert_eq!(upstream.status().len(), 29, "the twin: all that are listed");
    }
    assert!(all.len() > 20, "clients use others: {all:?}");
}

/// Of two and a half endpoints the half gets a half.
#[tokio::test(start_paused = true)]
async fn an_aperture_weighs_its_edges() {
    let world = World::default();
    let share = |size| Share::Aperture(Aperture::new(size, 0, 2).unwrap());
    let endpoints = || (0..5).map(|n| Endpoint::new(format!("e{n}")));
    let upstream = drive!(shop(endpoints()).subsetting(share(2)), world);
    for _ in 0..100 {
        ask!(upstream).unwrap();
    }
    let mut counts: Vec<usize> = world.asked().into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [20, 40, 40]);
}
