use super::*;
use crate::InvalidConfig;

#[test]
fn bad_sizes_are_refused_by_name() {
    let field = |result: Result<Config, InvalidConfig>| result.unwrap_err().field();
    assert_eq!(field(Config::ring().with_ring_size(20, 10)), "minimum_ring_size");
    assert_eq!(field(Config::ring().with_ring_size(0, 10)), "minimum_ring_size");
    assert_eq!(field(Config::ring().with_ring_size(0, 0)), "maximum_ring_size");
    assert_eq!(field(Config::ring().with_ring_size(1, 8_388_609)), "maximum_ring_size");
    assert_eq!(field(Config::maglev().with_balance_factor(99)), "hash_balance_factor");
    for size in [0, 1, 4, 65_536, 5_000_012, u32::MAX] {
        assert_eq!(field(Config::maglev().with_table_size(size)), "table_size", "{size}");
    }
    for size in [2, 3, 251, 65_537, Config::MAX_TABLE_SIZE] {
        assert_eq!(Config::maglev().with_table_size(size).unwrap().table_size(), Some(size));
    }
}

#[test]
fn the_settings_of_one_shape_do_not_touch_the_other() {
    let ring = Config::ring().with_function(Function::Murmur2);
    assert_eq!(ring.function(), Function::Murmur2);
    assert_eq!((ring.ring_size(), ring.table_size()), (Some((1_024, 8_388_608)), None));
    assert_eq!(ring.with_ring_size(7, 9).unwrap().function(), Function::Murmur2);
    let maglev = Config::maglev().with_function(Function::Murmur2);
    assert_eq!(maglev, Config::maglev(), "there is no choice");
    let bounded = maglev.with_balance_factor(150).unwrap();
    assert_eq!(bounded.balance_factor(), Some(150));
    assert_eq!(bounded.without_balance_factor(), maglev);
    assert_eq!(Config::default(), Config::ring());
}

/// The ring that Envoy's own test lists (`ring_hash_lb_test.cc`, BasicWithMurmur2): port, position.
#[test]
fn the_ring_of_murmur2_is_envoys() {
    let names: Vec<String> = (80..86).map(|port| format!("127.0.0.1:{port}")).collect();
    let config = Config::ring().with_function(Function::Murmur2).with_ring_size(12, 12).unwrap();
    let table = Table::new(&config, &equal(&names));
    let entries: Vec<(usize, u64)> =
        table.owners().map(|owner| 80 + owner).zip(table.hashes().iter().copied()).collect();
    let expected = [
        (85, 1_358_027_074_129_602_068),
        (83, 4_361_834_613_929_391_114),
        (84, 7_224_494_972_555_149_682),
        (81, 7_701_421_856_454_313_576),
        (82, 8_649_315_368_077_433_379),
        (84, 8_739_448_859_063_030_639),
        (81, 9_887_544_217_113_020_895),
        (82, 10_150_910_876_324_007_731),
        (83, 15_168_472_011_420_622_455),
        (80, 15_427_156_902_705_414_897),
        (85, 16_375_050_414_328_759_093),
        (80, 17_613_279_263_364_193_813),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn no_endpoint_no_owner() {
    for config in shapes() {
        let tables =
            [Table::new(&config, &[]), Table::by_locality(&config, &[(0, &equal(&names(3)))])];
        for table in tables {
            assert!(table.is_empty());
            assert_eq!((table.min_entries(), table.max_entries(), table.len()), (0, 0, 0));
            assert_eq!(table.owner(7, 0), None);
            assert_eq!(pick(&table, 7, &nodes(3)), None);
        }
    }
}

#[test]
fn the_same_key_twice_is_one_place_or_two_turns() {
    let names = ["a:1", "a:1", "b:1"].map(str::to_owned);
    let [ring, maglev] = shapes().map(|config| Table::new(&config, &equal(&names)));
    assert_eq!(ring.entries(0), ring.entries(1), "they lie upon each other");
    let mut rng = SplitMix64::new(3);
    for _ in 0..1_000 {
        assert_ne!(ring.owner(rng.next_u64(), 0), Some(1), "and the first is met first");
    }
    let mut down = nodes(3);
    down[0].down = true;
    let hash = (0..).find(|&hash| ring.owner(hash, 0) == Some(0)).unwrap();
    assert_eq!(pick(&ring, hash, &down), Some(1), "the second is its substitute");
    assert!(maglev.entries(1) * 3 > maglev.len() - 3, "{}", maglev.entries(1));
}

#[test]
fn a_table_that_is_too_small_says_so_and_loses_nobody() {
    let names = names(10);
    let small = [
        Config::ring().with_ring_size(1, 4).unwrap(),
        Config::maglev().with_table_size(7).unwrap(),
    ];
    for config in small {
        let table = Table::new(&config, &equal(&names));
        assert_eq!(table.min_entries(), 0);
        let idle = (0..10).find(|&index| table.entries(index) == 0).unwrap();
        let mut nodes = nodes(10);
        for (index, node) in nodes.iter_mut().enumerate() {
            node.down = index != idle;
        }
        assert_eq!(pick(&table, 99, &nodes), Some(idle), "the only one that is left");
    }
}

#[test]
fn extreme_weights_are_borne() {
    let names = names(3);
    let hosts = weighted(&names, &[u32::MAX, 1, u32::MAX]);
    let ring = Config::ring().with_ring_size(64, 1_000).unwrap();
    let table = Table::new(&ring, &hosts);
    assert!(table.len() <= 1_001, "{}", table.len());
    let table = Table::new(&Config::maglev(), &hosts);
    assert_eq!(table.entries(1), 1, "nobody who is in time is left out");
    // One against ten thousand: by rounds that would be as many questions as endpoints times slots.
    let names = super::names(10_000);
    let mut weights = vec![1; 10_000];
    weights[5_000] = 1_000_000_000;
    let table = Table::new(&Config::maglev(), &weighted(&names, &weights));
    assert_eq!(table.entries(5_000), 65_537 - 9_999);
}

#[test]
fn the_shares_are_the_weights() {
    let names = names(4);
    for config in shapes() {
        let table = Table::new(&config, &weighted(&names, &[1, 2, 3, 4]));
        for (index, weight) in [1, 2, 3, 4].into_iter().enumerate() {
            let expected = table.len() * weight / 10;
            assert!(table.entries(index).abs_diff(expected) <= 2, "{index}");
        }
    }
}

#[test]
fn a_candidate_that_is_not_there_is_not_picked() {
    for config in shapes() {
        let table = Table::new(&config, &equal(&names(10)));
        for hash in 0..200 {
            assert!(pick(&table, hash, &nodes(4)).unwrap() < 4, "a list that is too short");
        }
        assert_eq!(pick(&table, 7, &[]), None);
    }
}
