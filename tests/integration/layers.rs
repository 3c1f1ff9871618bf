//! Imports between folders are those that `docs/ARCHITECTURE.md` lists. Neither folders nor the
//! modules of a folder import each other in a cycle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// Segments of a path such as `crate::config::Config`.
type Segments = Vec<String>;
/// Imported names by importing name.
type ImportGraph = BTreeMap<String, BTreeSet<String>>;

/// Package of a module and path inside the package.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModulePath {
    package: String,
    path: Segments,
}

impl ModulePath {
    fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        child.path.push(name.to_owned());
        child
    }
}

/// Imports and declarations of a source file.
#[derive(Debug, Default)]
struct ParsedModule {
    paths: Vec<Segments>,
    /// Imported paths by name in scope.
    names: HashMap<String, Segments>,
    /// Child modules that are compiled for tests only.
    test_modules: Vec<String>,
}

impl<'ast> Visit<'ast> for ParsedModule {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.attrs.iter().any(is_test) {
            self.test_modules.push(item.ident.to_string());
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.flatten(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|s| s.ident.to_string());
        self.paths.push(segments.collect());
        visit::visit_path(self, path);
    }
}

impl ParsedModule {
    fn flatten(&mut self, tree: &UseTree, mut prefix: Segments) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.flatten(&path.tree, prefix);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.flatten(tree, prefix.clone());
                }
            }
            UseTree::Name(name) => self.import(prefix, &name.ident.to_string(), None),
            UseTree::Rename(name) => {
                let alias = name.rename.to_string();
                self.import(prefix, &name.ident.to_string(), Some(alias));
            }
            UseTree::Glob(_) => self.paths.push(prefix),
        }
    }

    fn import(&mut self, mut path: Segments, name: &str, alias: Option<String>) {
        if name != "self" {
            path.push(name.to_owned());
        }
        if let Some(last) = alias.or_else(|| path.last().cloned()) {
            self.names.insert(last, path.clone());
        }
        self.paths.push(path);
    }
}

fn is_test(attribute: &Attribute) -> bool {
    // `#[cfg(test)]`, `#[cfg(all(test, unix))]`
    let tokens = attribute
        .meta
        .require_list()
        .map(|list| list.tokens.clone());
    attribute.path().is_ident("cfg")
        && tokens.is_ok_and(|tokens| {
            let text = tokens.to_string();
            text == "test" || text.starts_with("all (test")
        })
}

/// All modules of the workspace's libraries.
struct Sources(HashMap<ModulePath, ParsedModule>);

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Self(HashMap::new());
        sources.read_package("rgby", &root.join("src"));
        for entry in fs::read_dir(root.join("crates")).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap();
            sources.read_package(&format!("rgby_{name}"), &folder.join("src"));
        }
        sources
    }

    fn read_package(&mut self, package: &str, folder: &Path) {
        let mut files = Vec::new();
        list_rust_files(folder, &mut files);
        for file in files {
            let relative = file.strip_prefix(folder).unwrap().with_extension("");
            let mut path: Segments = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            match path.last().map(String::as_str) {
                Some("mod") => drop(path.pop()),
                Some("lib") if path.len() == 1 => path.clear(),
                Some("main") if path.len() == 1 => continue,
                _ => {}
            }
            let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap());
            let mut module = ParsedModule::default();
            module.visit_file(&parsed.unwrap_or_else(|e| panic!("{}: {e}", file.display())));
            let package = package.to_owned();
            self.0.insert(ModulePath { package, path }, module);
        }
        self.drop_test_modules();
    }

    fn has_package(&self, package: &str) -> bool {
        let root = ModulePath {
            package: package.to_owned(),
            path: Vec::new(),
        };
        self.0.contains_key(&root)
    }

    fn drop_test_modules(&mut self) {
        let tests: Vec<ModulePath> = self
            .0
            .iter()
            .flat_map(|(module_path, module)| {
                module
                    .test_modules
                    .iter()
                    .map(|name| module_path.child(name))
            })
            .collect();
        self.0.retain(|module_path, _| {
            !tests.iter().any(|test| {
                test.package == module_path.package && module_path.path.starts_with(&test.path)
            })
        });
    }

    /// Resolves a path used in `from` to a module; `None` outside the workspace.
    fn target(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let (first, mut rest) = path.split_first()?;
        let mut module_path = match first.as_str() {
            "crate" => ModulePath {
                package: from.package.clone(),
                path: Vec::new(),
            },
            "self" => from.clone(),
            "super" => {
                let mut module_path = from.clone();
                module_path.path.pop()?;
                while rest.first().is_some_and(|segment| segment == "super") {
                    module_path.path.pop()?;
                    rest = &rest[1..];
                }
                module_path
            }
            package if self.has_package(package) => ModulePath {
                package: package.to_owned(),
                path: Vec::new(),
            },
            child if self.0.contains_key(&from.child(child)) => from.child(child),
            _ => return None,
        };
        for (at, segment) in rest.iter().enumerate() {
            let child = module_path.child(segment);
            if self.0.contains_key(&child) {
                module_path = child;
                continue;
            }
            // The segment may be a name that this module re-exports.
            if let Some(target) = self.0.get(&module_path).and_then(|m| m.names.get(segment)) {
                let followed = [target, &rest[at + 1..]].concat();
                if depth < 8 && followed != path {
                    return self
                        .target(&module_path, &followed, depth + 1)
                        .or(Some(module_path));
                }
            }
            break;
        }
        Some(module_path)
    }

    /// Returns every import as the importing and the imported module.
    fn imports(&self) -> impl Iterator<Item = (&ModulePath, ModulePath)> {
        self.0.iter().flat_map(move |(from, module)| {
            let targets = module.paths.iter();
            targets.filter_map(move |path| Some((from, self.target(from, path, 0)?)))
        })
    }
}

/// Collects the Rust files below a folder.
fn list_rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list_rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the folder of a module, as named on the architecture page; `None` for the root.
fn folder(module_path: &ModulePath) -> Option<String> {
    match module_path.package.strip_prefix("rgby_") {
        Some(package) => Some(package.to_owned()),
        None => module_path.path.first().cloned(),
    }
}

/// Returns the imports between folders in the table of `docs/ARCHITECTURE.md`.
fn documented_imports() -> ImportGraph {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(page).unwrap();
    let mut imports = ImportGraph::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [folder, _, uses] = cells[..] else {
            continue;
        };
        let folder = folder.trim().trim_matches('`');
        if let Some(name) = folder
            .strip_prefix("src/")
            .or(folder.strip_prefix("crates/"))
        {
            let uses = uses.split('`').skip(1).step_by(2).map(str::to_owned);
            imports.insert(name.to_owned(), uses.collect());
        }
    }
    imports
}

/// Returns the names in cycles and between two cycles; `None` without a cycle.
fn cycle(graph: &ImportGraph) -> Option<Vec<&str>> {
    let mut open: BTreeSet<&str> = graph.keys().map(String::as_str).collect();
    // A name is in no cycle if it imports no remaining name or no remaining name imports it.
    loop {
        let before = open.len();
        let imports = |from: &str, to: &str| graph[from].contains(to);
        let kept = open.iter().filter(|name| {
            open.iter().any(|other| imports(name, other))
                && open.iter().any(|other| imports(other, name))
        });
        open = kept.copied().collect();
        if open.len() == before {
            break;
        }
    }
    (!open.is_empty()).then(|| open.into_iter().collect())
}

#[test]
fn imports_between_folders_match_the_architecture_page() {
    let mut found: ImportGraph = documented_imports()
        .keys()
        .map(|k| (k.clone(), BTreeSet::new()))
        .collect();
    for (from, to) in Sources::read().imports() {
        if let (Some(from), Some(to)) = (folder(from), folder(&to))
            && from != to
        {
            found.entry(from).or_default().insert(to);
        }
    }
    let documented = documented_imports();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        documented.keys().collect::<Vec<_>>()
    );
    for (folder, uses) in &found {
        assert_eq!(
            uses, &documented[folder],
            "imports of {folder} (left), documented imports (right)"
        );
    }
    assert_eq!(cycle(&documented), None, "folders that import each other");
}

#[test]
fn modules_of_a_folder_have_no_import_cycle() {
    let mut folders: BTreeMap<String, ImportGraph> = BTreeMap::new();
    for (from, to) in Sources::read().imports() {
        if from.package != to.package {
            continue;
        }
        let common = from
            .path
            .iter()
            .zip(&to.path)
            .take_while(|(a, b)| a == b)
            .count();
        if let (Some(a), Some(b)) = (from.path.get(common), to.path.get(common)) {
            let parent = [std::slice::from_ref(&from.package), &from.path[..common]].concat();
            let siblings = folders.entry(parent.join("/")).or_default();
            siblings.entry(a.clone()).or_default().insert(b.clone());
        }
    }
    let cycles: Vec<_> = folders
        .iter()
        .filter_map(|(folder, graph)| Some((folder, cycle(graph)?)))
        .collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}
