//! What is done while too few are well.

use super::*;

#[tokio::test(start_paused = true)]
async fn panic_counts_who_fails_its_checks() {
    let to_the_ill = async |percent: u32| {
        let world = World::default();
        world.down(["a0", "a1", "a2"]);
        let asked = world.clone();
        let check = move |endpoint: Endpoint| {
            let is_down = asked.is_down(endpoint.address());
            async move { if is_down { Report::failed("down") } else { Report::passed() } }
        };
        let builder = shop(zone("a", 4, "eu/a"))
            .outlier(outlier::Config::off())
            .panic_threshold(Ratio::from_percent(percent))
            .health_check(health::Config::default(), check);
        let upstream = drive!(builder, world);
        tokio::time::sleep(60 * SECOND).await;
        let well = upstream.status().iter().filter(|one| one.is_healthy()).count();
        assert_eq!(well, 1);
        for _ in 0..100 {
            drop(ask!(upstream));
        }
        100 - share(&world.asked(), "a3")
    };
    assert_eq!(to_the_ill(0).await, 0, "the twin: nobody panics");
    assert_eq!(to_the_ill(25).await, 0, "one of four is no less than a quarter");
    assert_eq!(to_the_ill(50).await, 75);
}

#[tokio::test(start_paused = true)]
async fn to_fail_fast_is_bounded_in_time() {
    let build = |on_panic| {
        let priorities = Priorities::default()
            .with_panic_threshold(Ratio::from_percent(50))
            .unwrap()
            .with_on_panic(on_panic);
        shop(zone("a", 4, "eu/a")).priorities(priorities)
    };
    let world = World::default();
    let upstream = drive!(build(OnPanic::FailFast { at_most: 5 * SECOND }), world);
    world.down(["a0", "a1", "a2"]);
    until_out!(upstream, 3);
    let began = Clock.now();
    world.asked();
    while Clock.now().since(began) < 4 * SECOND {
        let error = ask!(upstream).unwrap_err();
        assert_eq!((error.reason(), error.flag()), (Reason::NoEndpoint, "UH"));
        let back = Clock.now().since(began) + error.retry_after().unwrap();
        assert_eq!(back, 5 * SECOND);
        tokio::time::advance(SECOND / 4).await;
    }
    assert!(world.asked().is_empty(), "not even who is well is asked");
    tokio::time::advance(SECOND).await;
    for _ in 0..100 {
        ask!(upstream).unwrap();
    }
    assert_eq!(share(&world.asked(), "a3"), 25, "then all are");

    let twin = drive!(build(OnPanic::UseAll), world);
    until_out!(twin, 3);
    assert!(ask!(twin).is_ok());
}
