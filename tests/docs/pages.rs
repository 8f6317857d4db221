//! The commands that a document shows, with the output that it shows for them.
//!
//! - In a `console` block a command begins with `$ ` or with `HOST$ `. The lines below it are its output.
//! - In an `sh` block each line is a command, and its output is not shown. A comment begins with `# `.
//! - A `toml` block is a configuration file.
//! - A command that ends with `\` goes on in the next line.

use crate::root;
use std::fs;

/// One command of a document.
#[derive(Clone, Debug)]
pub struct Step {
    /// Path and line, for messages.
    pub place: String,
    /// The machine that the prompt names; `here` where it names none.
    pub host: String,
    pub command: String,
    /// The lines of output that the document shows; `None` in an `sh` block.
    pub expected: Option<Vec<String>>,
    /// The text of a `toml` block, which the command reads.
    pub file: Option<String>,
}

/// A part of a document below one heading of the second level. Each has a sandbox of its own.
#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub steps: Vec<Step>,
}

/// README.md and every page directly below `docs/`, by path.
pub fn all() -> Vec<String> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = pages.map(|name| format!("docs/{}", name.to_string_lossy())).filter(|name| name.ends_with(".md"));
    let mut pages: Vec<String> = pages.chain(["README.md".to_owned()]).collect();
    pages.sort();
    pages
}

/// Reads the sections of a page that have commands.
pub fn sections(page: &str) -> Vec<Section> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut sections = vec![Section { title: page.to_owned(), steps: Vec::new() }];
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section { title: format!("{page}, {title}"), steps: Vec::new() });
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| !line.starts_with("```")).collect();
        let place = |number: usize| format!("{page}:{}", number + 1);
        sections.last_mut().unwrap().steps.extend(match language {
            "console" => console(&block, place),
            "sh" => shell(&block, place),
            "toml" => vec![Step {
                file: Some(block.iter().map(|(_, line)| format!("{line}\n")).collect()),
                ..step(place(number), "here", "dhtstore --config block.toml config show")
            }],
            _ => Vec::new(),
        });
    }
    sections.retain(|section| !section.steps.is_empty());
    sections
}

fn step(place: String, host: &str, command: &str) -> Step {
    Step { place, host: host.to_owned(), command: command.to_owned(), expected: None, file: None }
}

fn console(block: &[(usize, &str)], place: impl Fn(usize) -> String) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (number, line) in block {
        let prompt = line.split_once("$ ").filter(|(host, _)| host.chars().all(|c| c.is_ascii_lowercase()));
        match (prompt, steps.last_mut()) {
            (_, Some(last)) if goes_on => {
                last.command = format!("{} {}", last.command.trim_end_matches('\\').trim_end(), line.trim());
            }
            (Some((host, command)), _) => {
                let host = if host.is_empty() { "here" } else { host };
                steps.push(Step { expected: Some(Vec::new()), ..step(place(*number), host, command) });
            }
            (None, Some(last)) => last.expected.as_mut().unwrap().push((*line).to_owned()),
            (None, None) => panic!("{}: a console block begins with a command", place(*number)),
        }
        goes_on = line.ends_with('\\');
    }
    steps
}

fn shell(block: &[(usize, &str)], place: impl Fn(usize) -> String) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (number, line) in block {
        let command = if line.starts_with('#') { "" } else { line.split(" # ").next().unwrap().trim() };
        match steps.last_mut() {
            Some(last) if goes_on => {
                last.command = format!("{} {command}", last.command.trim_end_matches('\\').trim_end());
            }
            _ if command.is_empty() => {}
            _ => steps.push(step(place(*number), "here", command)),
        }
        goes_on = line.ends_with('\\');
    }
    steps
}
