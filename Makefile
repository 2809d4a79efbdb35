# The front door: every target works on a fresh clone; continuous integration runs the same ones.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
TARGET := x86_64-unknown-linux-gnu
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET_DIR)/$(TARGET)/release/strate
BASH_DIR := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_DIR := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH_DIR := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.PHONY: help build demo test faults soak conformance-buildah fuzz lint fmt real bench completions man install uninstall clean ci

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 24

build: ## The static release binary
	$(CARGO) build --release --locked
	@ls -l $(RELEASE)

demo: build ## A tour: build, run, commit, without registry and network
	contrib/demo.sh $(RELEASE)

test: ## All tests, as this user and, by root, as an ordinary user too; does its own set-up
	contrib/test.sh

faults: ## Kills and errors at every single system call of the verbs that write (half an hour and more)
	STRATE_FAULTS_FULL=1 $(CARGO) test --locked --test faults

soak: ## Workers on one store at random, then the verdict (SOAK_SECONDS each, SOAK_SEED, SOAK_WORKERS, SOAK_KILL)
	SOAK_SECONDS=$(or $(SOAK_SECONDS),600) $(CARGO) test --locked --test soak -- --nocapture

fuzz: ## Hostile input to parser, expander, ignore matcher and tar reader (FUZZ_SECONDS each)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) $(CARGO) test --locked --test fuzz -- --nocapture

lint: ## Formatting, clippy, dependencies, the rules of the code
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	contrib/deny.sh
	contrib/layering.sh

conformance-buildah: ## The cases of the language that buildah can do, built by it
	$(CARGO) test --locked --test language -- --ignored --nocapture buildah

fmt: ## Format the sources
	$(CARGO) fmt

real: build ## Twenty real-world Dockerfiles, built, run and checked (package registries, minutes)
	contrib/real.sh $(RELEASE)

bench: build ## Speed side by side with podman and bubblewrap
	contrib/bench.sh $(RELEASE)

completions: build ## Write the completion scripts of contrib/completions anew
	$(RELEASE) completion bash > contrib/completions/strate.bash
	$(RELEASE) completion zsh > contrib/completions/_strate
	$(RELEASE) completion fish > contrib/completions/strate.fish

man: build ## Write the manual pages into target/man
	mkdir -p $(TARGET_DIR)/man
	$(RELEASE) internal-man $(TARGET_DIR)/man

install: ## Install what `make build` made (PREFIX, DESTDIR)
	test -x $(RELEASE) || $(MAKE) build
	install -D -m 755 $(RELEASE) $(DESTDIR)$(PREFIX)/bin/strate
	install -D -m 644 contrib/completions/strate.bash $(BASH_DIR)/strate
	install -D -m 644 contrib/completions/_strate $(ZSH_DIR)/_strate
	install -D -m 644 contrib/completions/strate.fish $(FISH_DIR)/strate.fish

uninstall: ## Undo `make install`
	rm -f $(DESTDIR)$(PREFIX)/bin/strate $(BASH_DIR)/strate $(ZSH_DIR)/_strate $(FISH_DIR)/strate.fish

clean: ## Remove everything that was built
	$(CARGO) clean

ci: ## What continuous integration runs
	$(MAKE) lint
	$(MAKE) test
