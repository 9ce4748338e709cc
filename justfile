# The recipes people type. `just` alone lists them.

_list:
    @just --list --unsorted

# Builds what is shipped.
build:
    cargo build --release --locked

# Runs dpm from the source: `just run serve`.
run *args:
    cargo run --locked -- {{args}}

# All tests, or those whose name contains a word.
test *filter:
    cargo test --locked {{filter}}

# Clippy and documentation, both without warnings.
lint:
    cargo clippy --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

# Formats everything.
fmt:
    cargo fmt --all

# Benchmarks, or those whose name contains a word.
bench *filter:
    cargo bench --locked {{filter}}

# Licences, advisories, bans, sources.
deny:
    cargo deny --locked check

# What a change must pass.
ci:
    tests/run
    just build
    just deny
