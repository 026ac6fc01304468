# Gatehouse. `make help` says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

MODULE := github.com/gatehouse-acs/gatehouse
PROGRAMS := gatehouse gatehouse-crm gatehouse-demo
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTSUM := gotest.tools/gotestsum@v1.13.0

# Version and time come from git, or else from the environment and the clock.
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
BUILT ?= $(or $(shell git log -1 --format=%cI 2>/dev/null),$(shell date -u +%FT%TZ))
LDFLAGS := -X $(MODULE)/internal/cli.version=$(VERSION) -X $(MODULE)/internal/clock.built=$(BUILT)

# go-sqlite3 is C.
export CGO_ENABLED := 1
# A checkout that git does not trust would fail everything that go stamps.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

ARGS ?=
TESTFLAGS ?=
# Fuzzing: seconds for each target, and for all of them together.
FUZZ_EACH ?= 1
FUZZ_ALL ?= 180

.PHONY: help
help: ## say what there is
	@echo "Gatehouse: make TARGET"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: build ## watch people come in at a virtual site, without hardware (ARGS=--once plays the story and ends)
	@bin/gatehouse-demo $(ARGS)

.PHONY: build
build: ## leave the three programs in bin/
	@test/packages build
	@mkdir -p bin
	@for p in $(PROGRAMS); do \
		echo "building bin/$$p $(VERSION)"; \
		go build -trimpath -buildvcs=$(if $(COMMIT),true,false) -ldflags '$(LDFLAGS)' -o bin/$$p ./cmd/$$p; \
	done
	@echo "writing bin/reasons.md, the page of reason codes"
	@bin/gatehouse reasons >bin/reasons.md

# The controller's program for other processors: static, so that it runs on
# whatever Linux the controller has.
CROSSFLAGS := -trimpath -buildvcs=$(if $(COMMIT),true,false) -tags 'sqlite_omit_load_extension netgo osusergo'
CROSSLDFLAGS := $(LDFLAGS) -s -w -linkmode external -extldflags "-static"

.PHONY: build-arm64
build-arm64: CROSS := GOARCH=arm64 CC=aarch64-linux-gnu-gcc
build-arm64: OUT ?= bin/arm64
build-arm64: ## leave gatehouse for a 64-bit Raspberry Pi in bin/arm64/
	@test/packages arm64
	$(cross)

.PHONY: build-armv7
build-armv7: CROSS := GOARCH=arm GOARM=7 CC=arm-linux-gnueabihf-gcc
build-armv7: OUT ?= bin/armv7
build-armv7: ## leave gatehouse for a 32-bit Raspberry Pi in bin/armv7/
	@test/packages armv7
	$(cross)

define cross
	@mkdir -p '$(OUT)'
	@GOOS=linux $(CROSS) go build $(CROSSFLAGS) -ldflags '$(CROSSLDFLAGS)' -o '$(OUT)/gatehouse' ./cmd/gatehouse
	@echo "built $(OUT)/gatehouse $(VERSION): $$(stat -c %s '$(OUT)/gatehouse') bytes"
endef

.PHONY: guest
guest: ## make what the ARM guest's tests need: its kernel (once, in minutes) and bin/arm64/
	@test/packages test
	@test/guest/kernel >/dev/null
	@$(MAKE) build-arm64

# The same behind the tests, in whatever time they leave.
BEHIND := set -m; nice -n 19 $(MAKE) guest >/dev/null & set +m; trap "kill -- -$$! 2>/dev/null || :" EXIT;

.PHONY: test
test: ## check, fuzz each parser for a second, run every test with the race detector
	@test/packages test
	@$(BEHIND) $(MAKE) every-test

.PHONY: test-long
test-long: ## the same with the tests that take minutes and five minutes of fuzzing a target
	@test/packages test-long
	@$(BEHIND) $(MAKE) every-test LONG='-tags long -timeout 4h' FUZZ_EACH=300 FUZZ_ALL=86400

.PHONY: every-test
every-test:
	@$(MAKE) check
	@echo "== fuzz targets"
	@test/fuzz $(FUZZ_EACH) $(FUZZ_ALL)
	@echo "== tests"
	@# Last, so that the end of a log says which of them failed.
	@test/tests $(GOTESTSUM) -timeout 15m $(LONG) $(TESTFLAGS)

.PHONY: check
check: ## look at the source without running it: gofmt, go vet, staticcheck, go mod tidy
	@test/packages build
	@echo "== gofmt"
	@bad=$$(gofmt -l .); \
		if [[ -n $$bad ]]; then echo "not as gofmt writes it:"; echo "$$bad"; exit 1; fi
	@echo "== go mod tidy"
	@go mod tidy -diff
	@echo "== go vet"
	@go vet -tags long ./...
	@echo "== staticcheck"
	@go run $(STATICCHECK) -tags long ./...

.PHONY: bench
bench: ## measure, and print one table against what the machine can do
	@test/packages test
	@go test -run '^$$' -bench . -p 1 -timeout 30m ./... | go run ./internal/benchtable

.PHONY: bench-long
bench-long: ## the same for longer, at full size
	@test/packages test
	@go test -run '^$$' -bench . -benchtime 10s -tags long -p 1 -timeout 4h ./... | go run ./internal/benchtable
