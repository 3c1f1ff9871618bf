//! Checks relative links and anchors in all Markdown files, and the book's table of contents.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use super::{Page, pages, prose, root};

/// Returns the link targets on a line: the text between `](` and `)`, outside inline code.
fn targets(line: &str) -> Vec<&str> {
    let text = line.split('`').step_by(2);
    let found = text.flat_map(|part| part.split("](").skip(1));
    found.filter_map(|rest| rest.split(')').next()).collect()
}

/// Returns the anchor of a heading, as GitHub and mdBook generate it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let kept: String = heading.trim().chars().filter(kept).collect();
    kept.to_lowercase().replace(' ', "-")
}

/// Returns the anchors of a page's headings. Repeated names end in `-1`, `-2` and so on.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then_some(title)
    });
    let named = headings.map(|title| {
        let name = anchor(title);
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        match *count {
            1 => name,
            more => format!("{name}-{}", more - 1),
        }
    });
    named.collect()
}

/// Joins `folder` and `target`, and removes `.` and `..`.
fn resolve(folder: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// Returns a message for each broken link of a page.
fn broken(page: &Page, pages: &[Page]) -> Vec<String> {
    let folder = Path::new(&page.name).parent().unwrap();
    let in_book = page.name.starts_with("docs/");
    let mut faults = Vec::new();
    for (line, text) in prose(&page.text) {
        for target in targets(text) {
            let mut fault = |what: &str| {
                faults.push(format!("{}:{line}: `{target}` {what}", page.name));
            };
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => PathBuf::from(&page.name),
                file => resolve(folder, file),
            };
            if !root().join(&path).exists() {
                fault("does not exist");
                continue;
            }
            if in_book && !path.starts_with("docs") {
                fault("is outside the book; write it as code, not as a link");
            }
            let there = pages.iter().find(|page| Path::new(&page.name) == path);
            let has_anchor = |page: &Page| anchors(&page.text).contains(section);
            if !section.is_empty() && !there.is_some_and(has_anchor) {
                fault("names a heading that does not exist");
            }
        }
    }
    faults
}

#[test]
fn relative_links_have_targets() {
    let pages = pages();
    assert!(pages.len() > 20, "{}", pages.len());
    let faults: Vec<String> = pages.iter().flat_map(|page| broken(page, &pages)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn table_of_contents_lists_every_page_once() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.name == "docs/SUMMARY.md");
    let summary = &summary.unwrap().text;
    for page in &pages {
        let Some(name) = page.name.strip_prefix("docs/") else {
            continue;
        };
        let listed = summary.matches(&format!("]({name})")).count();
        assert_eq!(listed, usize::from(name != "SUMMARY.md"), "{name}");
    }
}

#[test]
fn detects_broken_links() {
    let page = |name: &str, text: &str| Page {
        name: name.into(),
        text: text.into(),
    };
    let pages = [
        page(
            "docs/config.md",
            "# One thing, `two`\n[x](nowhere.md) [y](#one-thing-two) `[z](code.md)`\n\
             ```\n[a](fenced.md)\n# no heading\n```\n[b](../README.md) [c](#no-heading)",
        ),
        page(
            "README.md",
            "[d](docs/config.md#one-thing-two) [e](docs/config.md#x)\n[f](docs)",
        ),
    ];
    let faults = |at: usize| broken(&pages[at], &pages);
    assert_eq!(
        faults(0),
        [
            "docs/config.md:2: `nowhere.md` does not exist",
            "docs/config.md:7: `../README.md` is outside the book; write it as code, not as a link",
            "docs/config.md:7: `#no-heading` names a heading that does not exist",
        ]
    );
    assert_eq!(
        faults(1),
        ["README.md:1: `docs/config.md#x` names a heading that does not exist"]
    );
}
