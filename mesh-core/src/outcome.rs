/// How an attempt ended: the one word that the data plane says back to the machines.
///
/// | outcome | HTTP | gRPC | outlier detection | breaker | balancer |
/// | --- | --- | --- | --- | --- | --- |
/// | `Success` | 100–499 | `OK` and the caller's own mistakes | resets the runs | success | latency |
/// | `ServerError` | 500–599 but 502–504 | `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | 5xx | failure | penalty |
/// | `GatewayError` | 502, 503, 504 | `UNAVAILABLE`, `DEADLINE_EXCEEDED` | 5xx and gateway | failure | penalty |
/// | `ConnectFailed`, `Timeout`, `Reset` | no answer | no answer | local origin | failure | penalty |
/// | `Throttled` | 429 | `RESOURCE_EXHAUSTED` | success | fails a probe | penalty |
/// | `Cancelled` | the caller went away | the same | nothing | gives the permit back | time so far |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each machine must decide on each outcome: no catch-all"
)]
pub enum Outcome {
    /// The endpoint answered, and the answer counts as good.
    Success,
    /// The endpoint answered with an error of its own.
    ServerError,
    /// The endpoint answered for something behind it, or is overloaded: 502, 503, 504.
    GatewayError,
    /// No connection to the endpoint.
    ConnectFailed,
    /// The time for this attempt ran out without an answer.
    Timeout,
    /// The connection broke after the request was sent.
    Reset,
    /// The endpoint refused this caller for now (429): not ill, but not to be pressed.
    Throttled,
    /// The caller gave up: this says nothing about the endpoint.
    Cancelled,
}

impl Outcome {
    /// All of them, each in the place that it has as a number.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ServerError,
        Self::GatewayError,
        Self::ConnectFailed,
        Self::Timeout,
        Self::Reset,
        Self::Throttled,
        Self::Cancelled,
    ];

    /// Whether it speaks against the endpoint. [`Outcome::Throttled`] and [`Outcome::Cancelled`] do not.
    pub const fn is_failure(self) -> bool {
        self.is_local_origin() || matches!(self, Self::ServerError | Self::GatewayError)
    }

    /// Whether no answer came from the endpoint at all.
    pub const fn is_local_origin(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::Timeout | Self::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn each_stands_in_its_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
