//! What happens between outcomes: returns, comparisons, and the ejection times that shrink.

use super::{
    Comparison, Config, Detection, Detector, Event, Host, Origin, Settings, SuccessRate,
    SuccessRates,
    tally::{Mark, Tally},
};
use crate::{
    Rng, Timestamp,
    sync::Ordering::{AcqRel, Acquire, Release},
};

impl Detection {
    /// Brings back the hosts whose time is over; at each interval compares the hosts with each other, and lets the
    /// times of healthy ones shrink.
    ///
    /// Does nothing before it is due. `hosts` are all hosts of the set, walked several times in the order given: the first
    /// ones take the places under the cap, so an order that is always the same makes it repeatable. `on_event` gets the
    /// index of the host in it. After a long pause it makes up for the returns, not for missed intervals (a timer of
    /// Envoy would not either). O(hosts), without allocation.
    pub fn sweep<'a, H>(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        hosts: H,
        on_event: impl FnMut(usize, Event),
    ) where
        H: IntoIterator<Item = &'a Host>,
        H::IntoIter: Clone,
    {
        let (config, is_over) = self.claim_interval(now);
        if is_over || now.as_nanos() >= self.next_return.load(Acquire) {
            self.sweep_all(&config, is_over, now, rng, hosts.into_iter(), on_event);
        }
    }

    /// The interval's timer has fired: a [`sweep`](Self::sweep) that does not ask whether it is due. The interval that runs
    /// is over, however long it was, and the next begins now.
    ///
    /// For a driver with a timer of its own, which as in Envoy fires when it likes.
    pub fn on_interval<'a, H>(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        hosts: H,
        on_event: impl FnMut(usize, Event),
    ) where
        H: IntoIterator<Item = &'a Host>,
        H::IntoIter: Clone,
    {
        let config = self.begin_interval(&mut self.lock(), now);
        self.sweep_all(&config, true, now, rng, hosts.into_iter(), on_event);
    }

    fn sweep_all<'a>(
        &self,
        config: &Config,
        interval_is_over: bool,
        now: Timestamp,
        rng: &mut impl Rng,
        hosts: impl Iterator<Item = &'a Host> + Clone,
        mut on_event: impl FnMut(usize, Event),
    ) {
        // From here on each ejection lowers it again; those from before have set their flag, and are met below.
        self.next_return.swap(u64::MAX, AcqRel);
        if config.is_off() && config.rules().off_forgives() {
            for (index, host) in hosts.enumerate() {
                if let Some(event) = self.uneject(now, host) {
                    on_event(index, event);
                }
                host.forgive();
            }
            return;
        }
        if config.rules().returns_first() {
            self.bring_back(now, hosts.clone(), &mut on_event);
        }
        if !config.compares_hosts() {
            // What was counted before the comparison was turned off is not for the day it is turned on again.
            hosts.clone().for_each(|host| host.tallies().clear());
        } else if interval_is_over {
            hosts.clone().for_each(|host| host.tallies().swap());
            for origin in Origin::ALL {
                let sweep = Sweep { detection: self, config, origin, now };
                let comparison = sweep.compare(rng, hosts.clone(), &mut on_event);
                self.lock().comparisons[origin.index()] = comparison;
            }
        }
        if !config.rules().returns_first() {
            self.bring_back(now, hosts.clone(), &mut on_event);
        }
        if interval_is_over {
            hosts.for_each(|host| host.decay(config, now));
        }
    }

    fn bring_back<'a>(
        &self,
        now: Timestamp,
        hosts: impl Iterator<Item = &'a Host>,
        on_event: &mut impl FnMut(usize, Event),
    ) {
        for (index, host) in hosts.enumerate() {
            let Some(until) = host.ejected_until() else { continue };
            if until > now {
                self.next_return.fetch_min(until.as_nanos(), AcqRel);
            } else if let Some(event) = self.uneject(now, host) {
                on_event(index, event);
            }
        }
    }

    /// True for the one caller that sweeps at the end of this interval.
    fn claim_interval(&self, now: Timestamp) -> (Config, bool) {
        let mut settings = self.lock();
        let is_over = now >= settings.interval_began + settings.config.interval();
        if is_over {
            self.begin_interval(&mut settings, now);
        }
        (settings.config, is_over)
    }

    fn begin_interval(&self, settings: &mut Settings, now: Timestamp) -> Config {
        settings.interval_began = now;
        self.next_interval.store((now + settings.config.interval()).as_nanos(), Release);
        settings.config
    }
}

/// The comparison of one origin, of the interval that is just over.
struct Sweep<'a> {
    detection: &'a Detection,
    config: &'a Config,
    origin: Origin,
    now: Timestamp,
}

impl Sweep<'_> {
    /// Both candidate lists are settled before the first ejection, as in Envoy; a host that both detectors name is
    /// ejected once.
    fn compare<'a>(
        &self,
        rng: &mut impl Rng,
        hosts: impl Iterator<Item = &'a Host> + Clone,
        on_event: &mut impl FnMut(usize, Event),
    ) -> Comparison {
        let (rate, share) = (self.config.success_rate(), self.config.failure_percentage());
        let mut comparison = Comparison::default();
        // Envoy looks at the set before it looks at anybody in it.
        let minimum =
            [rate.map(|rate| rate.minimum_hosts()), share.map(|share| share.minimum_hosts())];
        let minimum =
            minimum.into_iter().flatten().min().map_or(usize::MAX, |hosts| hosts as usize);
        let is_compared =
            !self.config.rules().counts_hosts_first() || hosts.clone().count() >= minimum;

        let mut sum = 0.0;
        // They have no rate, but the minimum counts them (A50: at least `requestVolume` requests, which may be 0).
        let mut idle = 0u32;
        let is_zero = |volume: Option<u32>| u32::from(volume == Some(0));
        for host in hosts.clone() {
            let Some(tally) = self.candidate(host, is_compared) else {
                if self.config.rules().counts_idle() {
                    idle = idle.saturating_add(is_zero(rate.map(|rate| rate.request_volume())));
                    let judged = is_zero(share.map(|share| share.request_volume()));
                    comparison.judged = comparison.judged.saturating_add(judged);
                }
                continue;
            };
            if is_rated(rate, tally) {
                comparison.rated = comparison.rated.saturating_add(1);
                sum += tally.rate();
            }
            let is_judged = share.is_some_and(|share| is_enough(share.request_volume(), tally));
            comparison.judged = comparison.judged.saturating_add(u32::from(is_judged));
        }

        if let Some(rate) = rate
            && comparison.rated >= 1
            && comparison.rated.saturating_add(idle) >= rate.minimum_hosts()
        {
            let mean = sum / f64::from(comparison.rated);
            let rated = hosts.clone().filter_map(|host| self.tally(host));
            let squares =
                rated.filter(|tally| is_rated(Some(rate), *tally)).fold(0.0, |sum, tally| {
                    let difference = tally.rate() - mean;
                    sum + difference * difference
                });
            let deviation = (squares / f64::from(comparison.rated)).sqrt();
            let factor = f64::from(rate.stdev_factor().as_ppm()) / 1e6;
            let threshold = mean - factor * deviation;
            comparison.rates = Some(SuccessRates { mean, threshold });
            let is_outlier = |tally: Tally| is_rated(Some(rate), tally) && tally.rate() < threshold;
            let detector = Detector::success_rate(self.origin);
            self.eject(rng, hosts.clone(), detector, is_outlier, on_event);
        }
        if let Some(share) = share
            && comparison.judged >= share.minimum_hosts().max(1)
        {
            let is_outlier = |tally: Tally| {
                is_enough(share.request_volume(), tally)
                    && self.config.rules().is_too_many(tally, share.threshold())
            };
            let detector = Detector::failure_percentage(self.origin);
            self.eject(rng, hosts, detector, is_outlier, on_event);
        }
        comparison
    }

    /// The host's tally if it is a candidate, which is marked if there is a comparison.
    fn candidate(&self, host: &Host, is_compared: bool) -> Option<Tally> {
        let tally = host.tallies().last(self.origin);
        let mark = if self.config.rules().skips_ejected() && host.is_ejected() {
            Mark::WasOut
        } else if tally.total() > 0 {
            Mark::Compared
        } else {
            Mark::None
        };
        if is_compared {
            host.tallies().set_mark(self.origin, mark);
        }
        (mark == Mark::Compared).then_some(tally)
    }

    fn tally(&self, host: &Host) -> Option<Tally> {
        let is_compared = host.tallies().mark(self.origin) == Mark::Compared;
        is_compared.then(|| host.tallies().last(self.origin))
    }

    fn eject<'a>(
        &self,
        rng: &mut impl Rng,
        hosts: impl Iterator<Item = &'a Host>,
        detector: Detector,
        is_outlier: impl Fn(Tally) -> bool,
        on_event: &mut impl FnMut(usize, Event),
    ) {
        for (index, host) in hosts.enumerate() {
            if self.tally(host).is_some_and(&is_outlier)
                && let Some(event) = self.detection.eject(self.now, rng, host, detector)
            {
                on_event(index, event);
            }
        }
    }
}

fn is_rated(rate: Option<SuccessRate>, tally: Tally) -> bool {
    rate.is_some_and(|rate| is_enough(rate.request_volume(), tally))
}

fn is_enough(volume: u32, tally: Tally) -> bool {
    tally.total() >= u64::from(volume)
}
