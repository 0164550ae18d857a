// Command pipeline counts the words of a text, in five stages that wait for each
// other:
//
//	a goroutine reads lines -> a ring -> green threads find the words
//	  -> a handler -> a goroutine counts them in a map
//
// A green thread has no heap, and so no map and no channel. It gets its lines
// from a ring, and hands its words to a handler, which runs on a goroutine.
package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"

	"lwprt/lwp"
	"lwprt/sched"
)

// A line is part of a line of the text, which does not end within a word. It
// holds no pointer, so that it can lie in a ring.
type line struct {
	n    int
	text [248]byte
}

// words are what a green thread has found, on its own stack.
type words struct {
	finder int
	n      int
	text   [16]struct {
		n    int
		text [56]byte
	}
}

// found is what the handler passes on: from here on everything is Go again.
type found struct {
	finder int
	words  []string
}

// A finder is a green thread's part.
type finder struct {
	id    int
	lines *lwp.Ring[line]
	hand  *lwp.Handler[words]
	err   bool
}

// find runs on a green thread. Recv and Call let others run on the worker.
func (f *finder) find() {
	w := words{finder: f.id}
	for {
		l, err := f.lines.Recv()
		if err != nil { // closed, and nothing left
			break
		}
		for i, c := range l.text[:l.n] {
			if !letter(c) {
				continue
			}
			x := &w.text[w.n]
			if x.n < len(x.text) {
				x.text[x.n] = c | 0x20
				x.n++
			}
			if i+1 == l.n || !letter(l.text[i+1]) {
				if w.n++; w.n == len(w.text) {
					f.pass(&w)
				}
			}
		}
	}
	f.pass(&w)
}

// pass has the handler take w's words and waits until it has.
func (f *finder) pass(w *words) {
	if f.hand.Call(w) != nil {
		f.err = true
	}
	for i := range w.text {
		w.text[i].n = 0
	}
	w.n = 0
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func main() {
	finders := flag.Int("finders", 8, "green threads that look for words")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: pipeline [-finders n] [file]") }
	flag.Parse()
	name := "README.md"
	if flag.NArg() > 0 {
		name = flag.Arg(0)
	}
	file, err := os.Open(name)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	lines, err := lwp.NewRing[line](32, lwp.MPMC)
	if err != nil {
		log.Fatal(err)
	}
	defer lines.Free()

	// The last stage: a goroutine that has a map.
	out, counts, calls := make(chan found), map[string]int{}, map[int]int{}
	counted := make(chan bool)
	go func() {
		for f := range out {
			calls[f.finder]++
			for _, w := range f.words {
				counts[w]++
			}
		}
		counted <- true
	}()

	// The stage before: what the green threads call.
	hand, err := lwp.NewHandler(func(w *words) {
		f := found{finder: w.finder}
		for i := range w.text[:w.n] {
			f.words = append(f.words, string(w.text[i].text[:w.text[i].n]))
		}
		out <- f
	})
	if err != nil {
		log.Fatal(err)
	}

	// The green threads.
	s, err := sched.New(sched.Config{Workers: 2, StackSize: 8 << 10})
	if err != nil {
		log.Fatal(err)
	}
	fs := make([]finder, *finders)
	for i := range fs {
		fs[i] = finder{id: i, lines: lines, hand: hand}
		if _, err := sched.Spawn(s, (*finder).find, &fs[i]); err != nil {
			log.Fatal(err)
		}
	}

	// The first stage: this goroutine.
	n, err := read(file, lines)
	if err != nil {
		log.Fatal(err)
	}
	lines.Close()
	if err := s.WaitContext(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
	hand.Close()
	close(out)
	<-counted
	for i := range fs {
		if fs[i].err {
			log.Fatal("a call of the handler has failed")
		}
	}

	total, called := 0, 0
	for _, c := range counts {
		total += c
	}
	for _, c := range calls {
		called += c
	}
	fmt.Printf("%s: %d words, %d different, from %d values of the ring, in %d calls by %d green threads\n",
		name, total, len(counts), n, called, len(calls))
	top := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	})
	for _, w := range top[:min(5, len(top))] {
		fmt.Printf("%6d %s\n", counts[w], w)
	}
}

// read sends what is in file, in lines or parts of them, and returns how many.
func read(file *os.File, lines *lwp.Ring[line]) (n int, err error) {
	s := bufio.NewScanner(file)
	for s.Scan() {
		for rest := s.Bytes(); len(rest) > 0; {
			var l line
			l.n = copy(l.text[:], rest)
			if l.n < len(rest) { // back to the last word's end
				for l.n > 1 && letter(rest[l.n-1]) && letter(rest[l.n]) {
					l.n--
				}
			}
			rest = rest[l.n:]
			if err := lines.SendContext(context.Background(), l); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, s.Err()
}
