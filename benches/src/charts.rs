//! Horizontal bars as SVG text: all that the report needs of a plotting library.

use std::fmt::Write as _;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What stands before it.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// What comes on top of it, in a lighter colour; 0 without.
    pub more: f64,
    /// How sure that is: from here to there.
    pub between: Option<(f64, f64)>,
    /// Whether it is something of others that ours are compared with.
    pub is_yardstick: bool,
}

/// A chart of bars under one title.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What stands above.
    pub title: String,
    /// What a value is counted in.
    pub unit: String,
    /// The bars, from the top.
    pub bars: Vec<Bar>,
    /// A line across all bars: what is promised, and what to call it.
    pub mark: Option<(f64, String)>,
}

impl Chart {
    /// The picture. Readable on light and dark pages: it brings its own background.
    pub fn svg(&self) -> String {
        let height = TOP + self.bars.len() * ROW + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
            escaped(&format!("{} ({})", self.title, self.unit))
        );
        let scale = BARS as f64 / self.longest();
        for (row, bar) in self.bars.iter().enumerate() {
            bar.draw(&mut svg, TOP + row * ROW, scale);
        }
        if let Some((value, name)) = &self.mark {
            let x = LABELS as f64 + value * scale;
            let (top, bottom) = (TOP - 4, TOP + self.bars.len() * ROW);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#b00020\" \
                 stroke-dasharray=\"4 3\"/>\n<text x=\"{x:.1}\" y=\"{}\" fill=\"#b00020\" text-anchor=\"middle\">{}</text>",
                bottom + 16,
                escaped(name)
            );
        }
        svg + "</svg>\n"
    }

    fn longest(&self) -> f64 {
        let ends = self.bars.iter().map(|bar| {
            bar.between
                .map_or(bar.value, |(_, high)| high)
                .max(bar.value + bar.more)
        });
        let mark = self.mark.as_ref().map(|(value, _)| *value);
        let longest = ends.chain(mark).filter(|end| end.is_finite()).fold(0.0, f64::max);
        if longest > 0.0 { longest } else { 1.0 }
    }
}

impl Bar {
    fn draw(&self, svg: &mut String, top: usize, scale: f64) {
        let middle = top + ROW / 2;
        let width = (self.value * scale).max(0.0);
        let color = if self.is_yardstick { "#9aa5b1" } else { "#2f6fb0" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>",
            LABELS - 8,
            middle + 4,
            escaped(&self.label),
            top + 4,
            ROW - 8
        );
        let mut end = width;
        if self.more > 0.0 {
            let more = self.more * scale;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{}\" width=\"{more:.1}\" height=\"{}\" fill=\"{LIGHTER}\"/>",
                LABELS as f64 + width,
                top + 4,
                ROW - 8
            );
            end += more;
        }
        if let Some((low, high)) = self.between {
            let (from, to) = (LABELS as f64 + low * scale, LABELS as f64 + high * scale);
            end = end.max(high * scale);
            let _ = writeln!(
                svg,
                "<line x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\" stroke=\"#202020\" \
                 stroke-width=\"2\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{}</text>",
            LABELS as f64 + end + 6.0,
            middle + 4,
            self.number()
        );
    }

    fn number(&self) -> String {
        match self.more > 0.0 {
            true => format!("{} + {}", number(self.value), number(self.more)),
            false => number(self.value),
        }
    }
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Text as XML has to have it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const LIGHTER: &str = "#a9c6e2";
const WIDTH: usize = 860;
/// Where bars begin.
const LABELS: usize = 300;
/// The longest bar; what is left of the width is for its number.
const BARS: usize = 480;
const ROW: usize = 26;
const TOP: usize = 44;
const BOTTOM: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_its_bars_and_keeps_them_within_its_width() {
        let bar = |label: &str, value: f64| Bar {
            label: label.to_owned(),
            value,
            more: value / 4.0,
            between: Some((value / 2.0, value * 2.0)),
            is_yardstick: false,
        };
        let chart = Chart {
            title: "a < b".to_owned(),
            unit: "s".to_owned(),
            bars: vec![bar("first", 0.5), bar("second", f64::NAN)],
            mark: Some((1.1, "promised".to_owned())),
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b (s)") && svg.contains("first") && svg.contains("promised"));
        assert!(!svg.contains("NaN\" height"), "{svg}");
        assert!(svg.contains("0.500 + 0.125"), "{svg}");
        assert_eq!(chart.longest(), 1.1);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [1234.4, 12.34, 1.234, 0.1234].map(number),
            ["1234", "12.3", "1.23", "0.123"]
        );
    }
}
