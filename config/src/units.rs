//! Sizes and durations with units.

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with a whole number.
    #[error("not a whole number with a unit")]
    Number,
    /// There is a number only, where its meaning depends on a unit.
    #[error("a number without a unit")]
    NoUnit,
    /// No such unit.
    #[error("unknown unit {0:?}")]
    Unit(String),
    /// Beyond 64 bits.
    #[error("too large")]
    TooLarge,
}

/// Units of size, by lower-case name. `M` alone is not among them: it means two things.
const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Units of time in milliseconds.
const TIMES: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// What to write instead of a wrong size.
pub(crate) const SIZE_HINT: &str = "write a size as 128MiB, 10GiB or 500KB";
/// What to write instead of a wrong duration.
pub(crate) const DURATION_HINT: &str = "write a duration as 500ms, 60s, 5m, 1h30m or 7d";

/// Reads `128MiB`, `500 KB`, `7B`; case does not matter.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    if !rest.is_empty() {
        return Err(UnitError::Number);
    }
    let factor = factor(&SIZES, &unit.to_ascii_lowercase())?;
    number.checked_mul(factor).ok_or(UnitError::TooLarge)
}

/// Reads `500ms`, `60s`, `1h30m`, `7d`, as milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    loop {
        let (number, unit, after) = number_and_unit(rest)?;
        let part = number
            .checked_mul(factor(&TIMES, unit)?)
            .ok_or(UnitError::TooLarge)?;
        total = total.checked_add(part).ok_or(UnitError::TooLarge)?;
        if after.is_empty() {
            return Ok(total);
        }
        rest = after;
    }
}

/// The leading number, the letters after it, and what follows.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number);
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    let rest = rest.trim_start();
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(if rest.is_empty() {
            UnitError::NoUnit
        } else {
            UnitError::Number
        });
    }
    Ok((number, unit, rest.trim_start()))
}

fn factor(units: &[(&str, u64)], unit: &str) -> Result<u64, UnitError> {
    let found = units.iter().find(|(name, _)| *name == unit);
    found
        .map(|(_, factor)| *factor)
        .ok_or_else(|| UnitError::Unit(unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        assert_eq!(parse_size("128MiB"), Ok(134_217_728));
        assert_eq!(parse_size(" 5 kb "), Ok(5_000));
        assert_eq!(parse_size("7B"), Ok(7));
        assert_eq!(parse_size("128"), Err(UnitError::NoUnit));
        assert_eq!(parse_size("1M"), Err(UnitError::Unit("m".to_owned())));
        assert_eq!(parse_size("1.5GiB"), Err(UnitError::Number));
        assert_eq!(parse_size("-1GiB"), Err(UnitError::Number));
        assert_eq!(parse_size("99999999TiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn durations_are_read_alone_and_in_a_row() {
        assert_eq!(parse_duration_ms("60s"), Ok(60_000));
        assert_eq!(parse_duration_ms("1h30m"), Ok(5_400_000));
        assert_eq!(parse_duration_ms("1d 12h"), Ok(129_600_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        assert_eq!(parse_duration_ms("60"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration_ms("1y"), Err(UnitError::Unit("y".to_owned())));
        assert_eq!(parse_duration_ms(""), Err(UnitError::Number));
        assert_eq!(
            parse_duration_ms("99999999999999999999s"),
            Err(UnitError::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = (parse_size(&text), parse_duration_ms(&text));
        }

        #[test]
        fn what_is_written_in_milliseconds_is_read_back(ms: u64) {
            prop_assert_eq!(parse_duration_ms(&format!("{ms}ms")), Ok(ms));
        }
    }
}
