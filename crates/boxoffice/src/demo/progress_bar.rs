//! Progress bars, drawn on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{msg:20} {bar:40} {pos}/{len} {elapsed}";

pub fn new(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a valid one");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}
