package examples

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPipelineCountsEveryWord compares the example with a count of the same text
// by other means.
func TestPipelineCountsEveryWord(t *testing.T) {
	const name = "../README.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	total := 0
	for _, w := range regexp.MustCompile(`[A-Za-z]+`).FindAllString(string(text), -1) {
		counts[strings.ToLower(w)]++
		total++
	}
	program := build(t, "pipeline")
	for _, finders := range []string{"1", "8", "300"} {
		out := succeeds(t, program, "-finders", finders, name)
		m := find1(t, out, `.*README\.md: (\d+) words, (\d+) different, from (\d+) values of the ring, in (\d+) calls by (\d+) green threads`)
		if number(t, m[1]) != total || number(t, m[2]) != len(counts) {
			t.Errorf("%s; want %d and %d", m[0], total, len(counts))
		}
		last := 0
		for i, m := range find(t, out, ` +(\d+) ([a-z]+)`, 5) {
			n := number(t, m[1])
			if n != counts[m[2]] || i > 0 && n > last {
				t.Errorf("%s: there are %d", m[0], counts[m[2]])
			}
			last = n
		}
	}
}
