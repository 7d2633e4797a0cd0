use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, Rng, SplitMix64, Timestamp,
    outlier::{Config, Detector, Event, WhyNot},
};

use super::fault::Fault;

/// A configuration, and whose rules it follows: the machine does not tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) grpc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Good,
    Connected,
    Bad { gateway: bool },
    Silence,
    Detected(Detector),
    Back,
}

#[derive(Clone, Default)]
pub(super) struct ModelHost {
    items: Vec<Item>,
    pub(super) ejected: Option<(Timestamp, Timestamp)>,
    returned: Option<Timestamp>,
    pub(super) multiplier: u32,
    pub(super) times: u32,
    /// Of this interval and the last, for each origin: whether each attempt was good.
    now: [Vec<bool>; 2],
    last: [Vec<bool>; 2],
}

/// What a sweep did.
pub(super) struct Swept {
    pub(super) events: Vec<(usize, Event)>,
    /// The hosts were compared in it.
    pub(super) compared: bool,
}

pub(super) struct Model {
    fault: Fault,
    setup: Setup,
    rng: SplitMix64,
    pub(super) now: Timestamp,
    pub(super) hosts: Vec<ModelHost>,
    /// How many hosts there are, as far as the detection was told.
    pub(super) told: u32,
    /// Removed while they were out, by the twin that forgets to count them back.
    ghosts: usize,
    interval_began: Timestamp,
    due_at_once: bool,
    pub(super) rates: [Option<(f64, f64)>; 2],
}

impl Model {
    pub(super) fn new(
        setup: Setup,
        hosts: usize,
        now: Timestamp,
        rng: SplitMix64,
        fault: Fault,
    ) -> Self {
        Self {
            fault,
            setup,
            rng,
            now,
            hosts: vec![ModelHost::default(); hosts],
            told: hosts as u32,
            ghosts: 0,
            interval_began: now,
            due_at_once: false,
            rates: [None; 2],
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    pub(super) fn set_config(&mut self, setup: Setup) {
        let old = self.setup.config;
        let new = setup.config;
        if old.is_off() && !new.is_off() || self.is(Fault::IntervalAnew) {
            self.interval_began = self.now;
        }
        if !new.compares_hosts() {
            self.rates = [None; 2];
            self.due_at_once |= old.compares_hosts();
        }
        self.due_at_once |= new.is_off() && setup.grpc;
        self.setup = setup;
    }

    fn splits(&self) -> bool {
        self.setup.config.split_local_origin() && !self.is(Fault::NoSplit)
    }

    fn count(&mut self, host: usize, origin: usize, is_good: bool) {
        if self.setup.config.compares_hosts() {
            self.hosts[host].now[origin].push(is_good);
        }
    }

    pub(super) fn connect(&mut self, host: usize) {
        if self.splits() {
            self.count(host, 1, true);
            if !self.is(Fault::ConnectIgnored) {
                self.hosts[host].items.push(Item::Connected);
            }
        }
    }

    pub(super) fn outcome(&mut self, host: usize, outcome: Outcome, whole: bool) -> Vec<Event> {
        let blames = self.setup.grpc != self.is(Fault::ThrottledMixedUp);
        let item = match outcome {
            Outcome::Throttled if blames => Item::Bad { gateway: false },
            Outcome::Success | Outcome::Throttled => Item::Good,
            Outcome::Cancelled if self.is(Fault::CancelledIsGood) => Item::Good,
            Outcome::Cancelled => return Vec::new(),
            Outcome::ServerError => Item::Bad { gateway: false },
            Outcome::GatewayError => Item::Bad { gateway: true },
            Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset => {
                if self.splits() {
                    Item::Silence
                } else {
                    Item::Bad { gateway: true }
                }
            }
        };
        if whole && !outcome.is_local_origin() {
            self.connect(host);
        }
        self.count(host, usize::from(item == Item::Silence), item == Item::Good);
        self.hosts[host].items.push(item);
        let config = self.setup.config;
        let local = (Detector::ConsecutiveLocalOrigin, config.consecutive_local_origin());
        let gateway = (Detector::ConsecutiveGatewayErrors, config.consecutive_gateway_errors());
        let any = (Detector::Consecutive5xx, config.consecutive_5xx());
        let asked = match item {
            Item::Silence => vec![local],
            Item::Bad { gateway: false } => vec![any],
            Item::Bad { gateway: true } => vec![gateway, any],
            Item::Good | Item::Connected | Item::Detected(_) | Item::Back => vec![],
        };
        // All runs first: a detection writes into the list that the next one reads.
        let met: Vec<Detector> = asked
            .into_iter()
            .filter(|(detector, threshold)| {
                *threshold > 0 && self.run(host, *detector) == *threshold
            })
            .map(|(detector, _)| detector)
            .collect();
        if self.hosts[host].ejected.is_some() {
            let detector = met.first().copied();
            let event = |detector| Event::NotEjected { detector, why: WhyNot::AlreadyEjected };
            return detector.map(event).into_iter().collect();
        }
        if !self.is(Fault::RunGoesOnAfterDetection) {
            self.hosts[host].items.extend(met.iter().copied().map(Item::Detected));
        }
        let mut events = Vec::new();
        for detector in met {
            let event = self.detected(host, detector);
            events.push(event);
            if matches!(event, Event::Ejected { .. }) || self.is(Fault::OneDetectorOnly) {
                break;
            }
        }
        events
    }

    /// The length of the run at the end of the list.
    fn run(&self, host: usize, detector: Detector) -> u32 {
        let mut run = 0;
        for item in self.hosts[host].items.iter().rev() {
            let is_local = detector == Detector::ConsecutiveLocalOrigin;
            match *item {
                Item::Back if self.is(Fault::RunGoesOnAfterReturn) => {}
                Item::Detected(by) if by == detector => break,
                Item::Connected if is_local => break,
                Item::Silence if is_local => run += 1,
                // Answers say nothing of the connection; that they needed one was told before.
                Item::Good | Item::Bad { .. } if is_local => {}
                Item::Connected | Item::Silence | Item::Detected(_) => {}
                Item::Good | Item::Back => break,
                Item::Bad { gateway: false } if detector == Detector::ConsecutiveGatewayErrors => {
                    if !self.is(Fault::GatewayRunGoesOn) {
                        break;
                    }
                }
                Item::Bad { .. } => run += 1,
            }
        }
        run
    }

    pub(super) fn ejected(&self) -> u32 {
        (self.ghosts + self.hosts.iter().filter(|host| host.ejected.is_some()).count()) as u32
    }

    /// Whether one more may be out.
    fn is_allowed(&self, ejected: u32) -> bool {
        let config = self.setup.config;
        let share = u64::from(config.max_ejection_percent().as_ppm()) * u64::from(self.told);
        let before = u64::from(ejected) * 1_000_000;
        let in_share = if self.setup.grpc || self.is(Fault::CapWithoutTheNext) {
            before < share
        } else {
            before + 1_000_000 <= share
        };
        in_share || config.always_eject_one() && ejected == 0 || self.is(Fault::NoCap)
    }

    /// The number at which no more may.
    pub(super) fn cap(&self) -> u32 {
        (0..).find(|ejected| *ejected > 1_000 || !self.is_allowed(*ejected)).unwrap_or(u32::MAX)
    }

    fn detected(&mut self, host: usize, detector: Detector) -> Event {
        if self.hosts[host].ejected.is_some() {
            return Event::NotEjected { detector, why: WhyNot::AlreadyEjected };
        }
        let (config, ejected) = (self.setup.config, self.ejected());
        if !self.is_allowed(ejected) {
            return Event::NotEjected {
                detector,
                why: WhyNot::OverCap { ejected, cap: self.cap() },
            };
        }
        let enforcing = config.enforcing(detector);
        if enforcing < Ratio::ONE && !self.rng.chance(enforcing) && !self.is(Fault::AlwaysEnforced)
        {
            return Event::NotEjected { detector, why: WhyNot::NotEnforced { enforcing } };
        }
        let jitter = match config.max_ejection_jitter().as_millis() as u64 {
            0 => 0,
            millis => self.rng.below(millis + 1),
        };
        let jitter = Duration::from_millis(if self.is(Fault::NoJitter) { 0 } else { jitter });
        let (base, max) = (config.base_ejection_time(), config.max_ejection_time());
        let (grpc, fault, now) = (self.setup.grpc, self.fault, self.now);
        let host = &mut self.hosts[host];
        let grows = grpc || base * host.multiplier < max + base || fault == Fault::NoEndOfGrowth;
        if grows && fault != Fault::NoGrowth {
            host.multiplier += 1;
        }
        let max = if fault == Fault::NoBound { Duration::MAX } else { max };
        let time = (base * host.multiplier.max(1)).min(max) + jitter;
        let strictly = grpc != (fault == Fault::ReturnMixedUp);
        let until = now + time + Duration::from_nanos(u64::from(strictly));
        host.times += 1;
        host.ejected = Some((now, until));
        Event::Ejected { detector, until, times: host.times }
    }

    pub(super) fn uneject(&mut self, host: usize) -> Option<Event> {
        let host = &mut self.hosts[host];
        let (since, _) = host.ejected.take()?;
        host.items.push(Item::Back);
        host.returned = Some(self.now);
        Some(Event::Unejected { after: self.now.since(since) })
    }

    pub(super) fn health_check_passed(&mut self, host: usize) -> Option<Event> {
        let allowed = self.setup.config.uneject_on_health_check();
        if allowed || self.is(Fault::HealthCheckAlways) { self.uneject(host) } else { None }
    }

    pub(super) fn replace(&mut self, host: usize) {
        let old = std::mem::take(&mut self.hosts[host]);
        if self.is(Fault::RemovedStillCounts) && old.ejected.is_some() {
            self.ghosts += 1;
        }
    }

    pub(super) fn sweep(&mut self) -> Swept {
        let config = self.setup.config;
        let interval_is_over = self.now >= self.interval_began + config.interval();
        if interval_is_over {
            self.interval_began = self.now;
        }
        let at_once = std::mem::take(&mut self.due_at_once);
        let mut events = Vec::new();
        if config.is_off() && self.setup.grpc && at_once && !self.is(Fault::NoPardon) {
            for index in 0..self.hosts.len() {
                events.extend(self.uneject(index).map(|event| (index, event)));
                self.hosts[index].multiplier = 0;
            }
        }
        let returns_first = self.setup.grpc == self.is(Fault::OrderMixedUp);
        if returns_first {
            self.bring_back(&mut events);
        }
        if !config.compares_hosts() && (at_once || interval_is_over) {
            for host in &mut self.hosts {
                (host.now, host.last) = Default::default();
            }
        }
        let compared = interval_is_over && config.compares_hosts();
        if compared {
            for host in &mut self.hosts {
                if self.fault == Fault::NoSwap {
                    host.last = host.now.clone();
                } else {
                    host.last = std::mem::take(&mut host.now);
                }
            }
            self.compare(0, &mut events);
            self.compare(1, &mut events);
        }
        if !returns_first {
            self.bring_back(&mut events);
        }
        if interval_is_over && !self.is(Fault::NoDecay) {
            self.decay();
        }
        Swept { events, compared }
    }

    fn bring_back(&mut self, events: &mut Vec<(usize, Event)>) {
        for index in 0..self.hosts.len() {
            if self.hosts[index].ejected.is_some_and(|(_, until)| until <= self.now) {
                events.extend(self.uneject(index).map(|event| (index, event)));
            }
        }
    }

    fn decay(&mut self) {
        let (now, interval) = (self.now, self.setup.config.interval());
        for host in &mut self.hosts {
            let rested = host.returned.is_some_and(|since| now >= since + interval);
            let rested = if self.setup.grpc { host.returned != Some(now) } else { rested };
            let rested = rested || self.fault == Fault::DecayAtReturn;
            if rested && host.ejected.is_none() && host.multiplier > 0 {
                host.multiplier -= 1;
            }
        }
    }

    fn compare(&mut self, origin: usize, events: &mut Vec<(usize, Event)>) {
        self.rates[origin] = None;
        let config = self.setup.config;
        let skips = self.setup.grpc == self.is(Fault::SkipsMixedUp);
        let figures = |host: &ModelHost| {
            let attempts = &host.last[origin];
            let good = attempts.iter().filter(|good| **good).count();
            (good, attempts.len())
        };
        // A50 counts who has at least the volume, also if that is nothing.
        let idle = self.hosts.iter().filter(|host| host.last[origin].is_empty()).count();
        let counts = self.setup.grpc;
        let idle = |volume: u32| if counts && volume == 0 { idle } else { 0 };
        let compared: Vec<(usize, usize, usize)> = (self.hosts.iter().enumerate())
            .filter(|(_, host)| !(skips && host.ejected.is_some()))
            .map(|(index, host)| (index, figures(host).0, figures(host).1))
            .filter(|(_, _, total)| *total > 0)
            .collect();
        let percent = |good: usize, total: usize| 100.0 * good as f64 / total as f64;

        if let Some(setting) = config.success_rate() {
            let rated: Vec<(usize, usize, usize)> = compared
                .iter()
                .copied()
                .filter(|(_, _, total)| *total >= setting.request_volume() as usize)
                .collect();
            let counted = rated.len() + idle(setting.request_volume());
            if !rated.is_empty() && counted >= setting.minimum_hosts() as usize {
                let count = rated.len() as f64;
                let rate_of = |(_, good, total): &(usize, usize, usize)| percent(*good, *total);
                let mut mean = rated.iter().map(rate_of).fold(0.0, |a, b| a + b) / count;
                if self.is(Fault::WeightedMean) {
                    let sum = |figure: fn(&(usize, usize, usize)) -> usize| {
                        rated.iter().map(figure).sum::<usize>()
                    };
                    mean = percent(sum(|host| host.1), sum(|host| host.2));
                }
                let squares =
                    rated.iter().map(|host| (rate_of(host) - mean) * (rate_of(host) - mean));
                let squares = squares.fold(0.0, |a, b| a + b);
                let divisor = if self.is(Fault::SampleDeviation) { count - 1.0 } else { count };
                let factor = f64::from(setting.stdev_factor().as_ppm()) / 1e6;
                let threshold = mean - factor * (squares / divisor).sqrt();
                self.rates[origin] = Some((mean, threshold));
                let detector = [Detector::SuccessRate, Detector::SuccessRateLocalOrigin][origin];
                for host in rated {
                    let rate = rate_of(&host);
                    if rate < threshold || rate <= threshold && self.is(Fault::RateInclusive) {
                        events.push((host.0, self.detected(host.0, detector)));
                    }
                }
            }
        }
        if let Some(setting) = config.failure_percentage() {
            let judged: Vec<(usize, usize, usize)> = compared
                .into_iter()
                .filter(|(_, _, total)| *total >= setting.request_volume() as usize)
                .collect();
            let counted = judged.len() + idle(setting.request_volume());
            if !judged.is_empty() && counted >= setting.minimum_hosts() as usize {
                let detector =
                    [Detector::FailurePercentage, Detector::FailurePercentageLocalOrigin][origin];
                let strictly = self.setup.grpc != self.is(Fault::PercentageMixedUp);
                for (index, good, total) in judged {
                    let bad = (total - good) as u64 * 1_000_000;
                    let allowed = total as u64 * u64::from(setting.threshold().as_ppm());
                    if bad > allowed || bad == allowed && !strictly {
                        events.push((index, self.detected(index, detector)));
                    }
                }
            }
        }
    }
}
