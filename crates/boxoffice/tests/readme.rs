//! Runs README's purchase by hand from top to bottom: each command runs in one shell against the program and must print
//! what README shows. Ids and times are compared by their pattern, and an id that README shows twice must be equal.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use test_support::process::{self, ServerProcess};

/// The test fails if an awaited condition takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The headings of the section whose commands are run and of the section after it.
const BEGIN: &str = "\n## A purchase by hand\n";
const END: &str = "\n## What the demo shows\n";
/// The shell prints this after each command.
const DONE: &str = "--- done ---";

#[test]
fn the_commands_of_the_readme_print_what_it_shows() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let steps = steps(&readme);
    assert!(steps.len() >= 20, "only {} commands are found", steps.len());

    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path());
    let mut shell = Shell::start(&server.url());
    let mut ids = Ids::default();
    for step in &steps {
        let command = ids.with_real_ids(&step.command);
        let began = Instant::now();
        loop {
            let printed = shell.run(&command);
            match ids.compare(&step.expected, &printed) {
                Ok(()) => break,
                // A reader is slower than a message: reads, and requests that need a new event, are repeated.
                Err(_) if step.may_repeat(&printed) && began.elapsed() < TIMEOUT => {}
                Err(difference) => panic!(
                    "README shows for\n$ {}\n{}\nbut it printed\n{printed}\n{difference}",
                    step.command, step.expected
                ),
            }
        }
    }
}

/// One command of README and its expected output.
struct Step {
    command: String,
    expected: String,
}

impl Step {
    fn may_repeat(&self, printed: &str) -> bool {
        let only_reads = !self.command.contains(" -d ") && !self.command.contains(" -X ");
        only_reads || printed.contains("EVENT_NOT_FOUND")
    }
}

/// The commands of the section's `console` blocks, in order.
fn steps(readme: &str) -> Vec<Step> {
    let (_, section) = readme.split_once(BEGIN).expect("the section begins");
    let (section, _) = section.split_once(END).expect("the section ends");
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in section.lines() {
        match line {
            "```console" => is_console = true,
            "```" => is_console = false,
            _ if !is_console => {}
            _ => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.to_owned(),
                    expected: String::new(),
                }),
                (None, Some(step)) => writeln!(step.expected, "{line}").unwrap(),
                (None, None) => panic!("a block begins without a command: {line}"),
            },
        }
    }
    steps
}

/// Maps ids of README to ids of this run.
#[derive(Default)]
struct Ids(HashMap<String, String>);

impl Ids {
    fn with_real_ids(&self, command: &str) -> String {
        let mut command = command.to_owned();
        for (written, real) in &self.0 {
            command = command.replace(written, real);
        }
        command
    }

    /// Compares word by word and learns ids; a word is a run of letters, digits, `-`, `:` and `.`.
    fn compare(&mut self, expected: &str, printed: &str) -> Result<(), String> {
        let (expected, printed) = (words(expected), words(printed));
        let mut learnt = self.0.clone();
        for (index, (want, got)) in expected.iter().zip(&printed).enumerate() {
            let is_same = match (pattern(want), pattern(got)) {
                (Some(Pattern::Id), Some(Pattern::Id)) => {
                    let known = learnt.entry((*want).to_owned());
                    known.or_insert_with(|| (*got).to_owned()) == got
                }
                (Some(want), Some(got)) => want == got,
                (None, None) => want == got,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_same {
                let before = expected[index.saturating_sub(4)..index].concat();
                return Err(format!("after {before:?}: {got:?} in place of {want:?}"));
            }
        }
        if expected.len() != printed.len() {
            return Err(format!(
                "{} words in place of {}",
                printed.len(),
                expected.len()
            ));
        }
        self.0 = learnt;
        Ok(())
    }
}

/// Words that differ in each run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Id,
    Time,
}

fn pattern(word: &str) -> Option<Pattern> {
    let has_shape = |shape: &str, is_digit: fn(char) -> bool| {
        word.len() == shape.len()
            && word
                .chars()
                .zip(shape.chars())
                .all(|(it, wanted)| match wanted {
                    'x' => is_digit(it),
                    wanted => it == wanted,
                })
    };
    if has_shape("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", |it| {
        it.is_ascii_hexdigit()
    }) {
        return Some(Pattern::Id);
    }
    has_shape("xxxx-xx-xxTxx:xx:xx.xxxZ", |it| it.is_ascii_digit()).then_some(Pattern::Time)
}

/// Splits a text at each character that cannot be in an id or a time, without the `date` header of an answer.
fn words(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.starts_with("date: ") && !line.is_empty());
    let is_inside = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | ':' | '.');
    lines
        .flat_map(|line| line.split_inclusive(move |it| !is_inside(it)))
        .flat_map(move |piece| {
            let end = piece.trim_end_matches(|it| !is_inside(it)).len();
            // `"expiresAt":"2026…` is one run; a name and its colon are not part of what follows.
            [&piece[..end], &piece[end..]]
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// The program as README starts it.
fn serve(data: &Path) -> ServerProcess {
    let mut command = process::serve(env!("CARGO_BIN_EXE_boxoffice"), data);
    command
        .env("BOXOFFICE_PAYMENT__FORWARD_TEST_CODES", "true")
        .stderr(Stdio::null());
    ServerProcess::start(command)
}

/// One shell for all commands, because they set variables for each other.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(url: &str) -> Self {
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash can be run");
        let input = child.stdin.take().expect("the input is a pipe");
        let output = BufReader::new(child.stdout.take().expect("the output is a pipe"));
        let mut shell = Self {
            child,
            input,
            output,
        };
        shell.run(&format!("api={url}"));
        shell
    }

    /// Runs one command and returns its output.
    fn run(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}\nprintf '\\n{DONE}\\n'").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the shell has ended at {command}");
            if line.trim_end() == DONE {
                return printed;
            }
            printed.push_str(&line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
