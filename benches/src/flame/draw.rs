//! The tree as a picture: what calls stands below what is called, and is as wide as its part of the samples.

use std::fmt::Write as _;

use super::stacks::Frames;
use crate::charts::escaped;

/// The picture. Pointing at a frame tells its whole name and its part.
pub(super) fn svg(frames: &Frames, title: &str) -> String {
    let height = TITLE + frames.depth() * ROW + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let scale = (WIDTH - 2 * MARGIN) as f64 / frames.samples().max(1) as f64;
    let picture = Picture {
        scale,
        all: frames.samples(),
    };
    picture.draw(&mut svg, frames, MARGIN as f64, height - MARGIN);
    svg + "</svg>\n"
}

struct Picture {
    scale: f64,
    all: u64,
}

impl Picture {
    fn draw(&self, svg: &mut String, frames: &Frames, mut left: f64, bottom: usize) {
        for (name, called) in &frames.called {
            let width = called.samples() as f64 * self.scale;
            if width >= WIDTH_MIN {
                let top = bottom.saturating_sub(ROW);
                let part = called.samples() as f64 * 100.0 / self.all.max(1) as f64;
                let _ = writeln!(
                    svg,
                    "<g><title>{} ({part:.1} %)</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" \
                     height=\"{}\" fill=\"{}\"/>{}</g>",
                    escaped(name),
                    (width - 0.3).max(0.1),
                    ROW - 1,
                    color(name),
                    label(name, left, top, width)
                );
                self.draw(svg, called, left, top);
            }
            left += width;
        }
    }
}

fn label(name: &str, left: f64, top: usize, width: f64) -> String {
    let room = (width / CHARACTER) as usize;
    if room < 4 {
        return String::new();
    }
    let short: String = name.chars().take(room).collect();
    format!(
        "<text x=\"{:.1}\" y=\"{}\">{}</text>",
        left + 2.0,
        top + ROW - 5,
        escaped(&short)
    )
}

/// The same for one name everywhere, somewhere between yellow and red.
fn color(name: &str) -> String {
    let mixed = name.bytes().fold(17_u32, |mixed, byte| {
        mixed.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    format!(
        "rgb({},{},{})",
        205 + mixed % 50,
        80 + mixed / 50 % 130,
        40 + mixed / 6_500 % 40
    )
}

const WIDTH: usize = 1_400;
const MARGIN: usize = 10;
const TITLE: usize = 34;
const ROW: usize = 17;
const CHARACTER: f64 = 6.7;
/// Narrower ones are not seen.
const WIDTH_MIN: f64 = 0.4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_can_be_pointed_at() {
        let svg = svg(&Frames::of("worker \n\t 1 Vec<u8>::push\n\t 2 main\n\n"), "all");
        for text in [
            "worker (100.0 %)",
            "Vec&lt;u8&gt;::push (100.0 %)",
            "main (100.0 %)",
        ] {
            assert!(svg.contains(text), "{svg}");
        }
    }
}
