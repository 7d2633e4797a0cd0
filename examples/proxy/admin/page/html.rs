//! Text, spans of time and dates as the page shows them.

use std::fmt;

/// Text that is no markup: names come from files and from peers.
pub(super) struct Text<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_fmt(&mut Escape(f), format_args!("{}", self.0))
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['&', '<', '>', '"', '\'']) {
            let plain = part.trim_end_matches(['&', '<', '>', '"', '\'']);
            self.0.write_str(plain)?;
            self.0.write_str(match &part[plain.len()..] {
                "&" => "&amp;",
                "<" => "&lt;",
                ">" => "&gt;",
                "\"" => "&quot;",
                "'" => "&#39;",
                _ => "",
            })?;
        }
        Ok(())
    }
}

/// Its two largest units: `2 d 3 h`, `59 min 5 s`, `12 s`.
pub(super) struct Span(pub(super) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
        let first = UNITS.iter().position(|(length, _)| self.0 >= *length).unwrap_or(3);
        let (length, unit) = UNITS[first];
        write!(f, "{} {unit}", self.0 / length)?;
        match UNITS.get(first + 1) {
            Some((next, unit)) if self.0 % length >= *next => {
                write!(f, " {} {unit}", self.0 % length / next)
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Seconds since 1970 as a date: `2026-11-22 17:56:09 UTC`.
pub(super) struct Date(pub(super) u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // 400 years have always the same number of days; what is left of them is counted out.
        let mut year = 1970 + days / 146_097 * 400;
        days %= 146_097;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let shown = Text("<b a=\"x\">&'</b>>").to_string();
        assert_eq!(shown, "&lt;b a=&quot;x&quot;&gt;&amp;&#39;&lt;/b&gt;&gt;");
        assert_eq!(Text("größe").to_string(), "größe");
    }

    #[test]
    fn a_span_has_two_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min 59 s"),
            (3_601, "1 h"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(Span(seconds).to_string(), shown);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As date(1) has them.
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (1_795_370_169, "2026-11-22 17:56:09 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (13_569_465_600, "2400-01-01 00:00:00 UTC"),
            (13_601_087_999, "2400-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(Date(seconds).to_string(), shown);
        }
    }
}
