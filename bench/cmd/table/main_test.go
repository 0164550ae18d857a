package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const results = `cpu: A CPU
kernel: Linux 6.1
go: go1.26
commit: abc
cpus: 1
BenchmarkSpawnJoin/impl=lwp   100   30000 ns/op
BenchmarkSpawnJoin/impl=pthread   100   36000 ns/op
cpus: 2
BenchmarkMutex/impl=futex/contend=2-2   100   10 ns/op   50.5 ops/turn
BenchmarkMutex/impl=sync/contend=2-2   100   20 ns/op
cpus: 1
BenchmarkSpawnJoin/impl=lwp   100   10000 ns/op
BenchmarkSpawnJoin/impl=pthread   100   12000 ns/op
BenchmarkSpawnJoin/impl=lwp   100   20000 ns/op
BenchmarkSpawnJoin/impl=pthread   100   24000 ns/op
`

const spawnTable = `| impl | median | min | ratio |
| --- | ---: | ---: | ---: |
| lwp | 20.0 µs | 10.0 µs | 1.00 |
| pthread | 24.0 µs | 12.0 µs | 1.20 |

A CPU, GOMAXPROCS=1; Linux 6.1; go1.26; commit abc; rounds: 3.
`

const mutexTable = `| impl | median | min | ratio | ops/turn |
| --- | ---: | ---: | ---: | ---: |
| futex | 10.0 ns | 10.0 ns | 1.00 | 50.5 |
| sync | 20.0 ns | 20.0 ns | 2.00 |  |

A CPU, GOMAXPROCS=2; Linux 6.1; go1.26; commit abc; rounds: 1.
`

func readme(spawn, mutex string) string {
	return "# Title\n<!-- bench:SpawnJoin -->\n" + spawn + "<!-- /bench -->\ntext\n" +
		"<!-- bench:Mutex/contend=2-2 -->\n" + mutex + "<!-- /bench -->\nend\n"
}

func TestTablesSayWhatTheResultsSay(t *testing.T) {
	tables, err := parse(strings.NewReader(results))
	if err != nil {
		t.Fatal(err)
	}
	got, err := replace(readme("old\n", ""), tables)
	if err != nil {
		t.Fatal(err)
	}
	if want := readme(spawnTable, mutexTable); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStaleTableFailsTheCheck(t *testing.T) {
	dir := t.TempDir()
	raw, md := filepath.Join(dir, "raw.txt"), filepath.Join(dir, "README.md")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	put(raw, results)
	put(md, readme(spawnTable, strings.Replace(mutexTable, "2.00", "2.01", 1)))
	if run(nil, md, "", []string{raw}) == nil {
		t.Error("a stale table passes")
	}
	if err := run(nil, "", md, []string{raw}); err != nil {
		t.Error(err)
	}
	if err := run(nil, md, "", []string{raw}); err != nil {
		t.Errorf("after -write: %v", err)
	}
	if run(nil, md, "", []string{raw, raw}) == nil {
		t.Error("two files for one table pass")
	}
}

func TestBrokenMarkersAreErrors(t *testing.T) {
	tables, err := parse(strings.NewReader(results))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"no table\n",
		"<!-- bench:SpawnJoin -->\n",
		"<!-- bench:SpawnJoin -->\n<!-- bench:SpawnJoin -->\n<!-- /bench -->\n",
		"<!-- /bench -->\n",
		"<!-- bench:Unknown -->\n<!-- /bench -->\n",
	} {
		if _, err := replace(text, tables); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestLineThatIsNoResultIsAnError(t *testing.T) {
	for _, text := range []string{"BenchmarkX 100\n", "--- FAIL\n", "BenchmarkX 1 fast ns/op\n"} {
		if _, err := parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
