//! What is wrong with each of the broken twins.

macro_rules! faults {
    ($($(#[doc = $text:literal])* $name:ident)*) => {
        /// What is wrong with a broken twin.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Fault {
            Nothing,
            $($(#[doc = $text])* $name,)*
        }

        impl Fault {
            const ALL: &[Self] = &[$(Self::$name),*];
            pub(super) const TEXTS: &'static [&'static str] = &[$(concat!($($text),*)),*];
        }
    };
}

faults! {
    /// ejects over the cap
    NoCap
    /// looks at the share before the next ejection, though the rules are Envoy's
    CapWithoutTheNext
    /// a removed host still counts
    RemovedStillCounts
    /// a plain server error leaves the gateway run alone
    GatewayRunGoesOn
    /// a detection does not start the run anew
    RunGoesOnAfterDetection
    /// a return does not start the runs anew
    RunGoesOnAfterReturn
    /// the second detector of one answer is not heard
    OneDetectorOnly
    /// the time is the base time, however often
    NoGrowth
    /// the multiplier grows beyond the bound
    NoEndOfGrowth
    /// the time grows without a bound
    NoBound
    /// no jitter
    NoJitter
    /// the multiplier never shrinks
    NoDecay
    /// the multiplier shrinks in the sweep of the return
    DecayAtReturn
    /// strict and inclusive are mixed up at the return
    ReturnMixedUp
    /// strict and inclusive are mixed up at the failure percentage
    PercentageMixedUp
    /// a success rate at the threshold is an outlier
    RateInclusive
    /// the sample's deviation, not the population's
    SampleDeviation
    /// the tallies are not swapped at the sweep
    NoSwap
    /// the mean is of all requests, not of the hosts' rates
    WeightedMean
    /// hosts that are out are compared (Envoy), or are not (gRPC)
    SkipsMixedUp
    /// returns come before comparisons (gRPC), or after (Envoy)
    OrderMixedUp
    /// everything that is detected is enforced
    AlwaysEnforced
    /// a cancelled attempt is a good one
    CancelledIsGood
    /// throttled is judged by the other's rules
    ThrottledMixedUp
    /// split changes nothing
    NoSplit
    /// a connection that was made does not end a run
    ConnectIgnored
    /// a health check that passes always brings a host back
    HealthCheckAlways
    /// without a detector, gRPC's hosts serve their time
    NoPardon
    /// a new configuration begins a new interval
    IntervalAnew
}

impl Fault {
    pub(super) fn numbered(index: Option<usize>) -> Self {
        index.and_then(|index| Self::ALL.get(index)).copied().unwrap_or(Self::Nothing)
    }
}
