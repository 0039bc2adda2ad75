//! What several questions take on the command line, refused where it could only hang or divide by zero.

use clap::builder::RangedU64ValueParser;

/// Whole numbers from one on.
pub fn counts() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A number above zero.
///
/// # Errors
/// When it is none.
pub fn positive(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("{text} is not a number above zero"))
}
