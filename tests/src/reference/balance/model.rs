//! The model: it draws by walking along the weights, serves deadlines from a list that it searches, strides by the numbers
//! of the proposal, and compares by dividing.

use std::{cell::Cell, rc::Rc};

use mesh_core::{
    Rng, SplitMix64, Timestamp,
    balance::{Balancer, Config, Weighted},
};

use super::{Settings, WINDOW, machine::Member};

#[derive(Debug)]
pub(super) struct Host {
    pub(super) weight: u32,
    /// What it reports, if it does.
    pub(super) says: Option<u8>,
    pub(super) active: Cell<u32>,
    pub(super) down: Cell<bool>,
    pub(super) since: Cell<Option<u64>>,
}

impl Host {
    pub(super) fn new(weight: u8, says: Option<u8>) -> Self {
        Self {
            weight: u32::from(weight) + 1,
            says: says.map(|says| says % 40 + 1),
            active: Cell::new(0),
            down: Cell::new(false),
            since: Cell::new(None),
        }
    }
}

pub(super) struct Model {
    pub(super) hosts: Vec<Rc<Host>>,
    pub(super) settings: Settings,
    pub(super) turn: u64,
    pub(super) second: u64,
}

impl Model {
    /// Compares a pick, and takes over how far the rotation went.
    pub(super) fn pick(
        &mut self,
        seed: u64,
        avoid: usize,
        found: Option<usize>,
    ) -> Result<(), String> {
        // In any case, so that the rotation of the model goes as far.
        let expected = self.expected(seed, avoid);
        let up = |index: &usize| !self.hosts[*index].down.get();
        let all = 0..self.hosts.len();
        let is_any_up = all.clone().any(|index| up(&index));
        let is_any_wanted = all.clone().any(|index| index != avoid && up(&index));
        let Some(found) = found else {
            return if is_any_up { Err("nobody was picked".to_owned()) } else { Ok(()) };
        };
        if !up(&found) {
            return Err(format!("{found} is down"));
        }
        if found == avoid && is_any_wanted {
            return Err(format!("{found} was to be avoided"));
        }
        match expected {
            Some(expected) if expected != found => Err(format!("{found} is not {expected}")),
            Some(_) | None => Ok(()),
        }
    }

    /// `None` if the draws met nobody: then anybody may be picked who is up.
    fn expected(&mut self, seed: u64, avoid: usize) -> Option<usize> {
        if self.hosts.is_empty() {
            return None;
        }
        let mut rng = SplitMix64::new(seed);
        let settings = self.settings;
        if settings.is_even() || settings.is_deadline() || settings.is_reported() {
            return self.first(&mut rng, avoid, Self::next);
        }
        if settings.is_random() {
            return self.first(&mut rng, avoid, Self::draw);
        }
        let is_wanted =
            |model: &Self, index: usize| index != avoid && !model.hosts[index].down.get();
        let n = self.hosts.len();
        if settings.choices() == 1 && settings.bias().is_some() {
            let mut sum = 0.0;
            let mut choice = None;
            for index in (0..n).filter(|index| is_wanted(self, *index)) {
                let pull = self.share(index) * self.pull(index);
                sum += pull;
                if choice.is_none() || unit(&mut rng) * sum < pull {
                    choice = Some(index);
                }
            }
            return choice;
        }
        let is_plain = settings.choices() == 0 && settings.bias().is_none() && !settings.slow;
        if is_plain && n == 1 {
            return is_wanted(self, 0).then_some(0);
        }
        let first = self.first(&mut rng, avoid, Self::draw)?;
        if settings.choices() == 1 {
            return Some(self.least(&mut rng, first, |model, index| is_wanted(model, index)));
        }
        let mut best = first;
        let mut pulls = self.pull(first);
        let draws = u64::from(settings.choices().max(1)) + u64::from(settings.choices() > 1);
        for _ in 0..draws.max(2) - 1 {
            let next = if settings.choices() == 0 && !settings.slow {
                let next = if self.is_weighted() {
                    if is_plain {
                        Some(self.draw(&mut rng))
                    } else {
                        self.first(&mut rng, avoid, Self::draw)
                    }
                } else {
                    let other = rng.below(n as u64 - 1) as usize;
                    Some(if other < first { other } else { other + 1 })
                };
                next.filter(|next| *next < n && is_wanted(self, *next))
            } else {
                self.first(&mut rng, avoid, Self::draw)
            };
            let Some(next) = next else { continue };
            let is_better = if settings.bias().is_some() {
                pulls += self.pull(next);
                unit(&mut rng) * pulls < self.pull(next)
            } else {
                next != best && self.is_better(next, best)
            };
            if is_better {
                best = next;
            }
        }
        Some(best)
    }

    /// The first that is wanted and not held back; of those held back, the first.
    fn first(
        &mut self,
        rng: &mut SplitMix64,
        avoid: usize,
        next: fn(&mut Self, &mut SplitMix64) -> usize,
    ) -> Option<usize> {
        let mut held_back = None;
        for _ in 0..if self.settings.slow { 16 } else { 8 } {
            let index = next(self, rng);
            if index == avoid || self.hosts[index].down.get() {
                continue;
            }
            let warmth = self.warmth(index);
            if warmth >= 1.0 || unit(rng) < warmth {
                return Some(index);
            }
            held_back.get_or_insert(index);
        }
        held_back
    }

    fn least(
        &self,
        rng: &mut SplitMix64,
        first: usize,
        is_wanted: impl Fn(&Self, usize) -> bool,
    ) -> usize {
        let (mut best, mut least, mut ties) = (first, f64::INFINITY, 0);
        for index in (0..self.hosts.len()).filter(|index| *index != first) {
            if !is_wanted(self, index) || !self.is_better(index, first) {
                continue;
            }
            let burden = f64::from(self.hosts[index].active.get() + 1) / self.share(index);
            if burden < least {
                (best, least, ties) = (index, burden, 1);
            } else if burden == least {
                ties += 1;
                if rng.below(ties) == 0 {
                    best = index;
                }
            }
        }
        best
    }

    fn is_better(&self, next: usize, best: usize) -> bool {
        let active = |index: usize| f64::from(self.hosts[index].active.get());
        (active(next) + 1.0) * self.share(best) <= active(best) * self.share(next)
    }

    fn is_weighted(&self) -> bool {
        self.hosts.windows(2).any(|pair| pair[0].weight != pair[1].weight)
    }

    fn pull(&self, index: usize) -> f64 {
        let bias = f64::from(self.settings.bias().unwrap_or(0)) / 100.0;
        f64::from(self.hosts[index].active.get() + 1).powf(-bias)
    }

    fn share(&self, index: usize) -> f64 {
        let divisor = self.hosts.iter().fold(0, |divisor, host| gcd(divisor, host.weight));
        let weight = if self.is_weighted() { self.hosts[index].weight / divisor } else { 1 };
        f64::from(weight) * self.warmth(index)
    }

    fn warmth(&self, index: usize) -> f64 {
        let factor = |since: Option<u64>| {
            since.map_or(1.0, |since| {
                let elapsed = ((self.second - since) as f64).max(0.001) / WINDOW as f64;
                elapsed.clamp(0.1, 1.0)
            })
        };
        let of = |host: &Rc<Host>| factor(host.since.get());
        let oldest = self.hosts.iter().map(of).fold(0.0, f64::max);
        if self.settings.slow { (of(&self.hosts[index]) / oldest).min(1.0) } else { 1.0 }
    }

    fn draw(&mut self, rng: &mut SplitMix64) -> usize {
        if !self.is_weighted() {
            return rng.below(self.hosts.len() as u64) as usize;
        }
        let divisor = self.hosts.iter().fold(0, |divisor, host| gcd(divisor, host.weight));
        let parts = || self.hosts.iter().map(|host| u64::from(host.weight / divisor));
        let mut point = rng.below(parts().sum());
        for (index, part) in parts().enumerate() {
            match point.checked_sub(part) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        0
    }

    /// The next of the rotation.
    fn next(&mut self, _: &mut SplitMix64) -> usize {
        let known = self.hosts.iter().filter(|host| host.says.is_some()).count();
        if self.settings.is_reported() && known > 1 {
            return self.stride();
        }
        self.turn += 1;
        let (turn, n) = (self.turn - 1, self.hosts.len() as u64);
        if self.is_weighted() {
            if self.settings.is_deadline() { self.deadline(turn) } else { self.even(turn) }
        } else {
            (turn % n) as usize
        }
    }

    /// The order of even rotations is the machine's own: it is asked itself, with all up.
    fn even(&self, turn: u64) -> usize {
        let up =
            self.hosts.iter().map(|host| Member::of(&Host::new(host.weight as u8 - 1, None), 0));
        let all = Weighted::new(up.collect());
        let balancer = Balancer::starting_at(Config::round_robin(), turn);
        let pick = balancer.pick(Timestamp::ZERO, &mut SplitMix64::new(0), &all, |_| false);
        pick.unwrap_or(0)
    }

    /// Envoy's scheduler, from the first pick on.
    fn deadline(&self, turn: u64) -> usize {
        let divisor = self.hosts.iter().fold(0, |divisor, host| gcd(divisor, host.weight));
        let cycle: u64 = self.hosts.iter().map(|host| u64::from(host.weight / divisor)).sum();
        let turn = turn % (2_048 / cycle * cycle);
        let period = |index: usize| 1.0 / f64::from(self.hosts[index].weight);
        let mut entries: Vec<(f64, u64)> =
            (0..self.hosts.len()).map(|index| (period(index), index as u64)).collect();
        let mut last = 0;
        for number in 0..=turn {
            last = 0;
            for index in 1..entries.len() {
                if entries[index] < entries[last] {
                    last = index;
                }
            }
            entries[last] = (entries[last].0 + period(last), self.hosts.len() as u64 + number);
        }
        last
    }

    /// As in gRPC.
    fn stride(&mut self) -> usize {
        let says: Vec<f64> =
            self.hosts.iter().map(|host| host.says.map_or(0.0, f64::from)).collect();
        let known = says.iter().filter(|says| **says > 0.0).count() as f64;
        let scale = 65_535.0 / says.iter().copied().fold(0.0, f64::max);
        let mean = (scale * says.iter().sum::<f64>() / known).round() as u64;
        let weights: Vec<u64> = says
            .iter()
            .map(|says| if *says > 0.0 { (scale * says).round() as u64 } else { mean })
            .collect();
        let n = weights.len() as u64;
        loop {
            let number = self.turn;
            self.turn += 1;
            let (index, generation) = (number % n, number / n);
            let weight = weights[index as usize];
            let is_even = weights.iter().all(|weight| *weight == mean);
            if is_even || (weight * generation + index * 32_767) % 65_535 >= 65_535 - weight {
                return index as usize;
            }
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn unit(rng: &mut SplitMix64) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
