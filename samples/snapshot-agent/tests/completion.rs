// SPDX-License-Identifier: GPL-2.0
//! What packages install beside the program says the same as the program.

use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::CommandFactory;
use clap_complete::{generate, Shell};
use nullhz_agent::commands::Cli;

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// `NULLHZ_WRITE=1 cargo test --test completion` writes the file anew.
#[test]
fn completion_is_of_this_command_line() {
    let file = beside("nullhz-agent.bash");
    let mut wanted = b"# SPDX-License-Identifier: GPL-2.0\n".to_vec();
    generate(
        Shell::Bash,
        &mut Cli::command(),
        "nullhz-agent",
        &mut wanted,
    );
    if env::var_os("NULLHZ_WRITE").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    assert!(
        fs::read(&file).unwrap() == wanted,
        "nullhz-agent.bash is of another command line"
    );
}

#[test]
fn man_page_has_every_command_and_option() {
    let page = fs::read_to_string(beside("nullhz-agent.8")).unwrap();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            page.contains(&format!(".It Cm {name}\n")),
            "no command {name}"
        );
        let options = command
            .get_arguments()
            .filter(|option| !option.is_hide_set());
        for option in options.filter_map(|option| option.get_long()) {
            // Each of these lines starts one: ".It Fl -keep Ar N", ".Op Fl -json", ".Fl -follow".
            let told = page.lines().any(|line| {
                let mut words = line
                    .split(' ')
                    .skip_while(|word| *word != "Fl" && *word != ".Fl");
                words.next().is_some() && words.next() == Some(&format!("-{option}"))
            });
            assert!(told, "{name}: no option --{option}");
        }
    }
}
