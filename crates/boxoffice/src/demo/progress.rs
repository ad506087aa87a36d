//! Progress bars. They draw on a terminal only: without one, the lines printed beside them tell the story.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{msg:20} {bar:40} {pos}/{len} {elapsed}";

pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a valid one");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}
