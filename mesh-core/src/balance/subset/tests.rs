use super::*;

fn labels(pairs: &[(&'static str, &'static str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn hosts(all: &[&[(&'static str, &'static str)]]) -> Vec<Metadata> {
    all.iter().map(|pairs| Metadata::from(&labels(pairs))).collect()
}

fn selector(keys: &[&str]) -> Selector {
    Selector::new(keys.iter().copied()).unwrap()
}

/// Stage and version of four endpoints, as in Envoy's docs.
fn envoys() -> Vec<Metadata> {
    hosts(&[
        &[("stage", "prod"), ("v", "1.0")],
        &[("stage", "prod"), ("v", "1.0")],
        &[("stage", "canary"), ("v", "1.1")],
        &[("stage", "dev"), ("v", "1.2-pre")],
    ])
}

fn members<'a>(
    subsets: &'a Subsets,
    pairs: &[(&'static str, &'static str)],
) -> Option<&'a [usize]> {
    subsets.find(&labels(pairs)).map(|found| subsets[found.subset()].members())
}

#[test]
fn keys_must_be_exactly_those_of_a_selector() {
    let config = Config::default()
        .with_selector(selector(&["stage", "v"]))
        .and_then(|config| config.with_selector(selector(&["stage"])))
        .unwrap();
    let subsets = Subsets::new(&config, &envoys());
    assert_eq!(members(&subsets, &[("stage", "prod")]), Some([0, 1].as_slice()));
    assert_eq!(members(&subsets, &[("stage", "canary"), ("v", "1.1")]), Some([2].as_slice()));
    for pairs in
        [&[][..], &[("v", "1.0")], &[("stage", "prod"), ("v", "1.0"), ("x", "")], &[("stage", "")]]
    {
        assert_eq!(members(&subsets, pairs), None, "{pairs:?}");
    }
    // A broken twin, that looks for endpoints which match, would find some.
    assert!(envoys()[0].matches(&labels(&[("v", "1.0")]), false));
}

#[test]
fn redundant_keys_are_dropped_if_they_may_be() {
    let config = Config::default().with_selector(selector(&["stage"])).unwrap();
    let asked = &[("stage", "canary"), ("x", "1")];
    assert_eq!(members(&Subsets::new(&config, &envoys()), asked), None);
    let config = config.with_redundant_keys(true);
    assert_eq!(members(&Subsets::new(&config, &envoys()), asked), Some([2].as_slice()));
}

#[test]
fn fallbacks_are_walked_in_order() {
    let narrow = selector(&["a", "b", "c"]).with_fallback_keys(["a", "b"]).unwrap();
    let middle = selector(&["a", "b"]).with_fallback_keys(["b"]).unwrap();
    let config = Config::default()
        .with_fallback(Fallback::AnyEndpoint)
        .with_selector(narrow)
        .and_then(|config| config.with_selector(middle))
        .and_then(|config| {
            config.with_selector(selector(&["b"]).with_fallback(Fallback::DefaultSubset))
        })
        .unwrap()
        .with_default_subset(labels(&[("c", "3")]));
    let subsets =
        Subsets::new(&config, &hosts(&[&[("a", "1"), ("b", "2")], &[("c", "3")], &[("b", "7")]]));
    let found = |a, b, c| members(&subsets, &[("a", a), ("b", b), ("c", c)]).unwrap();
    assert_eq!(found("1", "2", "9"), [0], "by two keys");
    assert_eq!(found("9", "2", "9"), [0], "by the last key");
    assert_eq!(found("9", "7", "9"), [2], "by the last key");
    assert_eq!(found("9", "9", "9"), [1], "the default subset of that selector");
    assert_eq!(members(&subsets, &[("c", "9")]).unwrap(), [0, 1, 2], "no such selector");
    let asked = subsets.find(&labels(&[("b", "7")])).unwrap();
    let fallen = subsets.find(&labels(&[("b", "8")])).unwrap();
    assert_eq!((asked.is_fallback(), fallen.is_fallback()), (false, true));
}

#[test]
fn keys_without_a_selector_of_their_own_fall_through() {
    let odd = selector(&["a", "b"]).with_fallback_keys(["a"]).unwrap();
    let config = Config::default().with_selector(odd).unwrap();
    let subsets = Subsets::new(&config, &hosts(&[&[("a", "1")]]));
    assert_eq!(members(&subsets, &[("a", "1"), ("b", "1")]), None);
    let any = Subsets::new(&config.with_fallback(Fallback::AnyEndpoint), &hosts(&[&[("a", "1")]]));
    assert_eq!(members(&any, &[("a", "1"), ("b", "1")]), Some([0].as_slice()));
}

#[test]
fn panic_mode_any_follows_only_the_fallback_of_all() {
    let config = Config::default()
        .with_fallback(Fallback::DefaultSubset)
        .with_default_subset(labels(&[("stage", "nowhere")]))
        .with_panic_mode_any(true)
        .with_selector(selector(&["v"]).with_fallback(Fallback::DefaultSubset))
        .unwrap();
    let subsets = Subsets::new(&config, &envoys());
    let found = subsets.find(&labels(&[("stage", "x")])).unwrap();
    assert_eq!(subsets[found.subset()].key(), &Key::Default);
    assert!(subsets[found.subset()].members().is_empty());
    assert_eq!(subsets[found.or().unwrap()].key(), &Key::Any);
    assert_eq!(subsets.find(&labels(&[("v", "x")])).unwrap().or(), None);
    assert_eq!(subsets.find(&labels(&[("v", "1.1")])).unwrap().or(), None);
}

#[test]
fn a_list_is_any_of_its_values_if_it_may_be() {
    let endpoints = [
        Metadata::default().with_list("v", ["1", "2", "2"]).with_list("z", ["a", "b"]),
        Metadata::default().with("v", "2").with("z", "a"),
        Metadata::default().with_list("v", Vec::<String>::new()).with("z", "a"),
    ];
    let config = Config::default().with_selector(selector(&["v", "z"])).unwrap();
    let config = config.with_default_subset(labels(&[("v", "1")]));
    let listing = Subsets::new(&config.clone().with_list_as_any(true), &endpoints);
    let found = |v, z| members(&listing, &[("v", v), ("z", z)]);
    assert_eq!(found("2", "a"), Some([0, 1].as_slice()));
    assert_eq!(found("1", "b"), Some([0].as_slice()));
    assert_eq!(found("", "a"), None);
    assert_eq!(listing[DEFAULT].members(), [0]);
    let plain = Subsets::new(&config, &endpoints);
    assert_eq!(members(&plain, &[("v", "2"), ("z", "a")]), Some([1].as_slice()));
    assert!(plain[DEFAULT].members().is_empty());
}

#[test]
fn one_endpoint_cannot_fill_the_memory() {
    let many = (0..1_000).map(|number| number.to_string());
    let glutton = ["a", "b", "c"]
        .into_iter()
        .fold(Metadata::default(), |all, key| all.with_list(key, many.clone()));
    let config = Config::default().with_selector(selector(&["a", "b", "c"])).unwrap();
    let config = config.with_list_as_any(true).with_selector(selector(&["a"])).unwrap();
    let subsets = Subsets::new(&config, &[glutton]);
    assert_eq!(subsets.len(), 2 + 1_000);
}

#[test]
fn a_single_host_is_the_first() {
    let config = Config::default().with_selector(selector(&["v"]).with_single_host(true)).unwrap();
    let subsets = Subsets::new(&config, &envoys());
    assert_eq!(members(&subsets, &[("v", "1.0")]), Some([0].as_slice()));
}

#[test]
fn alternatives_are_tried_one_by_one() {
    let config = Config::default().with_selector(selector(&["v"])).unwrap();
    let subsets = Subsets::new(&config, &envoys());
    let tried = |alternatives: &[Labels]| -> Vec<_> {
        let found = subsets.find_each(&labels(&[("v", "9")]), alternatives);
        found.into_iter().map(|found| subsets[found.subset()].members()).collect()
    };
    let other = |version| labels(&[("v", version)]);
    assert_eq!(tried(&[other("8"), other("1.1"), other("1.0")]), [vec![2], vec![0, 1]]);
    assert!(tried(&[]).is_empty());
}

#[test]
fn a_subset_is_known_over_changes() {
    let config = Config::default().with_selector(selector(&["v"])).unwrap();
    let before = Subsets::new(&config, &envoys());
    let after = Subsets::new(&config, &envoys()[2..]);
    let key = |subsets: &Subsets| {
        let found = subsets.find(&labels(&[("v", "1.1")])).unwrap();
        subsets[found.subset()].key().clone()
    };
    assert_eq!(key(&before), key(&after));
    assert_eq!(key(&after), Key::Of(labels(&[("v", "1.1")])));
    assert_eq!(after.iter().count(), after.len());
    assert!(after.iter().all(|(id, _)| id.index() < after.len()));
}

#[test]
fn bad_settings_are_refused() {
    let keys =
        |keys: &[&'static str]| selector(&["a", "b"]).with_fallback_keys(keys.iter().copied());
    assert!(keys(&["a"]).is_ok());
    for bad in [&[][..], &["a", "b"], &["b", "a", "a"], &["c"], &["a", "c"]] {
        assert_eq!(keys(bad).unwrap_err().field(), "fallback_keys_subset");
    }
    assert!(Selector::new(Vec::<String>::new()).is_err());
    let config = Config::default().with_selector(selector(&["b", "a"])).unwrap();
    let error = config.with_selector(selector(&["a", "b", "a"])).unwrap_err();
    assert_eq!((error.field(), error.value()), ("subset_selectors", "a,b"));
}

#[test]
fn nobody_and_strange_characters_have_an_answer() {
    let strange = ["", " ", "=", "a=b,c=d", "\u{0}", "ключ", "\u{202e}", "*"];
    let endpoints: Vec<_> =
        strange.iter().map(|text| Metadata::default().with(*text, *text)).collect();
    for text in strange {
        let config = Config::default().with_selector(selector(&[text])).unwrap();
        let subsets = Subsets::new(&config, &endpoints);
        let found = members(&subsets, &[(text, text)]).unwrap();
        assert_eq!(found.iter().map(|&at| strange[at]).collect::<Vec<_>>(), [text]);
        let nobody = Subsets::new(&config.with_fallback(Fallback::AnyEndpoint), &[]);
        assert!(members(&nobody, &[(text, text)]).unwrap().is_empty());
    }
    assert_eq!(scaled_weight(u32::MAX, u64::MAX, 1), u32::MAX);
    assert_eq!(scaled_weight(u32::MAX, u64::MAX, u64::MAX), u32::MAX);
    assert_eq!(scaled_weight(3, 1, 2), 2);
}
