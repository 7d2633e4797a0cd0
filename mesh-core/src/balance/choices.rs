use crate::InvalidConfig;

/// How many endpoints a pick compares, for the strategies that compare.
///
/// | choices | source | a pick of `n` equal endpoints |
/// | --- | --- | --- |
/// | [`Choices::TWO`] | Finagle, Linkerd, tower | two different ones; the default |
/// | [`Choices::drawn`] | Envoy's `choice_count`, gRPC A48 | so many draws; the same may be drawn twice |
/// | [`Choices::ALL`] | Envoy's `FULL_SCAN` | looks at all `n`, and draws among those that tie |
///
/// More choices find less loaded endpoints, and send callers that see the same there together. With weights, every
/// draw is by weight, and [`Choices::ALL`] begins with such a draw.
///
/// ```
/// use mesh_core::balance::Choices;
///
/// assert_eq!(Choices::default(), Choices::TWO);
/// assert_ne!(Choices::drawn(2)?, Choices::TWO, "drawn with replacement");
/// let error = Choices::drawn(1).unwrap_err();
/// assert_eq!(error.to_string(), "choices: 1 is not allowed, expected 2 to 255");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Choices(u8);

impl Choices {
    /// Two different ones.
    pub const TWO: Self = Self(0);

    /// All of them: the cost of a pick grows with the number of endpoints.
    pub const ALL: Self = Self(1);

    /// So many draws, with replacement.
    ///
    /// # Errors
    ///
    /// Fewer than 2, between which there is nothing to choose, and more than 255. (gRPC reads more than 10 as 10.)
    pub fn drawn(count: u32) -> Result<Self, InvalidConfig> {
        match u8::try_from(count) {
            Ok(count) if count >= 2 => Ok(Self(count)),
            Ok(_) | Err(_) => Err(InvalidConfig::new("choices", count, "2 to 255")),
        }
    }

    /// How many draws, with replacement; `None` for the other two.
    pub const fn count(self) -> Option<u8> {
        if self.0 < 2 { None } else { Some(self.0) }
    }

    pub(super) const fn to_u8(self) -> u8 {
        self.0
    }

    pub(super) const fn from_u8(bits: u8) -> Self {
        Self(bits)
    }
}
