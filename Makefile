# Everything that is done to Keyturn by hand or by machine has a name here.
# "make" prints the names; .ci/run runs the stages of "check" one by one.

GO        ?= go
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -X main.version=$(VERSION)
DATA      ?= ./keyturn-data
FUZZTIME  ?= 10s
BENCH     ?= .
BENCHTIME ?= 1s
TAGS      ?=
TODAY     := $(shell date -u +%F)

# The stages of check, in the order in which they are cheapest to fail.
STAGES := fmt-check vet lint arrows test sdk race fuzz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help deps build run test sdk check stages race fuzz bench soak fmt fmt-check vet lint arrows generate clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install by package name what the tests need (Debian; asks for root when something is missing)
	@scripts/deps

build: ## build bin/keyturn: static, reproducible, version from git (TAGS=awskms,hashivault,... adds those key management services)
	CGO_ENABLED=0 $(GO) build -tags '$(TAGS)' -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/keyturn ./cmd/keyturn

run: build ## build and serve on http://127.0.0.1:7780 with everything embedded (DATA=./keyturn-data)
	bin/keyturn serve --data $(DATA)

test: deps ## the tests, with the long proofs whole; go test ./... takes a share of these (what needs root or a lab skips without, and says so)
	KEYTURN_FULL=1 $(GO) test -timeout 30m ./...
	$(GO) test -tags localsecrets -run KMS ./internal/keyring

# A module of its own: Cloudflare's SDKs take minutes to compile, and nothing else needs them.
sdk: ## the program against Cloudflare's own Go SDKs (downloads them)
	cd test/cloudflare && $(GO) vet ./... && $(GO) test -count=1 -timeout 15m ./...

check: $(STAGES) ## all that CI checks: format, vet, linters, arrows, test, SDKs, race, fuzz

stages: # the stages of check, for .ci/run
	@echo $(STAGES)

# The race detector is run on packages that start goroutines, in their code or in
# their tests. Elsewhere it costs minutes and finds nothing. test/cloudflare is another
# module. SQLite, which is C made into Go, is compiled without: it costs half of the
# time, its memory is no variable of ours, and what it orders by locks is seen still,
# since sync is compiled with.
race: ## the tests again under the race detector, where goroutines are ours, but for the longest (needs a C compiler)
	@packages=$$(grep -rlE --include='*.go' --exclude-dir=testdata \
		'(^|[^[:alnum:]_."])go (func\(|[[:alpha:]_][[:alnum:]_.]*\()|\.Go\(|synctest\.' \
		cmd internal test | grep -v '^test/cloudflare/' | xargs -n1 dirname | sort -u | sed 's,^,./,') && \
	set -x && CGO_ENABLED=1 $(GO) test -race -gcflags='modernc.org/...=-race=false' -short -timeout 20m $$packages

# What is found to be interesting is made small by a hundred tries: by default go
# test may take a minute for each, and all of FUZZTIME goes by in that. A target that
# fails is run again: an input that crashes it lies in testdata by then, and fails at
# once, while the end of FUZZTIME alone, which go test before 1.27 sometimes takes for
# a failure (go.dev/issue/75804), does not come so twice.
fuzz: ## every fuzz target for FUZZTIME=10s
	@grep -rHoE --include='*_test.go' '^func Fuzz[[:alnum:]_]+' . | sed 's,^\(.*\)/[^/]*:func ,\1 ,' | sort | \
	while read -r dir target; do \
		set -- -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=100x "$$dir"; \
		echo "$(GO) test $$*"; \
		$(GO) test "$$@" || $(GO) test "$$@" || exit 1; \
	done

bench: ## benchmarks BENCH=. for BENCHTIME=1s, printed and kept as bench/results/DATE.txt
	@mkdir -p bench/results
	@{ echo "# $(TODAY) keyturn $(VERSION), $$($(GO) version), $$(nproc) cores, $$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"; \
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchtime=$(BENCHTIME) -benchmem -timeout 60m ./... | grep -v -e 'no test files' -e '^ok .*s$$' -e '^PASS$$' -e '^--- BENCH' -e '^    [a-z_]*_test.go:'; \
	} | tee bench/results/$(TODAY).txt

soak: ## soaks and 100,000 hosts: tests named TestSoak..., hours and gigabytes
	KEYTURN_SOAK=1 $(GO) test -count=1 -timeout=0 -v -run='^TestSoak' ./...

fmt: ## format every Go file
	$(GO) tool gofumpt -l -w .

fmt-check: ## fail if a Go file is not formatted
	@files=$$($(GO) tool gofumpt -l .) && if [ -n "$$files" ]; then echo "not formatted, run 'make fmt':"; echo "$$files"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

lint: ## staticcheck, pinned in go.mod
	$(GO) tool staticcheck ./...

arrows: ## who may import whom, and the other rules of this repository (*_test.go in this folder)
	$(GO) test -count=1 .

generate: ## run go generate
	$(GO) generate ./...

clean: ## remove what build made
	rm -rf bin dist
