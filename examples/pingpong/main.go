// Command pingpong has two green threads wake each other by Park and Unpark,
// shows the order that comes of it, and what a hop costs beside goroutines.
package main

import (
	"fmt"
	"log"
	"runtime"
	"slices"
	"sync"
	"time"

	"lwprt/lwp"
	"lwprt/sched"
)

// A player is one of two fibers, and a game is what the two share. What
// they change is handed over with the ball: who has been woken sees all that the
// other did before its Unpark, so no lock is needed.
type player struct {
	name   string
	game   *game
	other  *player
	me     sched.Fiber
	worker int // to be pinned to; 0 for none
}

type game struct {
	left int // hops
	made int
	two  [2]player
	fail bool
}

// play runs on a fiber.
func (p *player) play() {
	for {
		sched.Park("the ball")
		if p.game.left == 0 {
			break
		}
		p.game.left--
		p.game.made++
		p.other.me.Unpark()
	}
	p.other.me.Unpark() // the game is over for both; one who has ended does not mind
}

// serve runs on a fiber too. A fiber that is spawned is ready but does not run
// yet, so both handles are there before one needs the other's.
func (g *game) serve() { g.start((*player).play) }

func (g *game) start(play func(*player)) {
	for i := range g.two {
		p := &g.two[i]
		var err error
		if p.me, err = sched.GoAttr(play, p, sched.Attr{Name: p.name, Worker: p.worker}); err != nil {
			g.fail = true
			return
		}
	}
	g.two[0].me.Unpark()
	for i := range g.two {
		g.two[i].me.Join()
	}
}

func newGame(hops int, workers [2]int) *game {
	g := &game{left: hops}
	g.two[0] = player{name: "ping", game: g, other: &g.two[1], worker: workers[0]}
	g.two[1] = player{name: "pong", game: g, other: &g.two[0], worker: workers[1]}
	return g
}

// run runs fn(g) on a fiber of a scheduler of its own.
func run(workers int, fn func(*game), g *game) {
	s, err := sched.New(sched.Config{Workers: workers})
	check(err)
	f, err := sched.Spawn(s, fn, g)
	check(err)
	check(f.Join())
	check(s.Close())
	if g.fail {
		log.Fatal("pingpong: a fiber could not be made")
	}
}

// Part 1: who runs when.

func (p *player) say(what string) {
	var l lwp.Line
	l.Str("   ").Str(p.name).Str(": ").Str(what).Print()
}

func (p *player) playAloud() {
	for {
		p.say("parks")
		sched.Park("the ball")
		if p.game.left == 0 {
			break
		}
		p.game.left--
		p.say("has the ball, unparks the other")
		p.other.me.Unpark()
		p.say("and still runs")
	}
	p.say("ends")
	p.other.me.Unpark()
}

func order() {
	fmt.Println("1. The order")
	run(1, func(g *game) { g.start((*player).playAloud) }, newGame(3, [2]int{}))
	fmt.Print(`
   The one who spawned the two has unparked ping before either ran. That is remembered:
   ping's first Park returned at once, and so did pong's. Nobody is missed who comes late.
   Unpark does not switch. It makes the other ready, and the caller keeps the worker
   until it stops; then the other runs. There is no third party: no time slice ends, no
   signal comes, and between two calls of the scheduler nobody else runs here.

`)
}

// Part 2: what a hop costs.

const (
	hops    = 200_000
	farHops = 5_000
	rounds  = 5
)

func near() int {
	g := newGame(hops, [2]int{})
	run(1, (*game).serve, g)
	return g.made
}

// far pins the players to workers of their own: the ball goes from CPU to CPU.
func far() int {
	g := newGame(farHops, [2]int{1, 2})
	run(2, (*game).serve, g)
	return g.made
}

func channels(hops int, begin func()) (made int) {
	var wg sync.WaitGroup
	ball := [2]chan int{make(chan int), make(chan int)}
	for i := range ball {
		wg.Go(func() {
			begin()
			for left := range ball[i] {
				if left == 0 {
					break
				}
				made++
				ball[1-i] <- left - 1
			}
			if i == hops%2 { // who got the last; the other waits
				close(ball[1-i])
			}
		})
	}
	ball[0] <- hops
	wg.Wait()
	return made
}

func nearGoroutines() int {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return channels(hops, func() {})
}

// farGoroutines locks each to a thread of its own, as far as it goes like far.
func farGoroutines() int { return channels(farHops, runtime.LockOSThread) }

type way struct {
	name, how string
	hops      int
	run       func() int
	took      []float64 // ns a hop
}

func cost() {
	fmt.Println("2. What a hop costs")
	ways := []way{
		{name: "fibers", how: "Park, Unpark; one worker", hops: hops, run: near},
		{name: "goroutines", how: "channels; GOMAXPROCS=1", hops: hops, run: nearGoroutines},
		{name: "fibers", how: "each pinned to a worker of its own", hops: farHops, run: far},
		{name: "goroutines", how: "each locked to a thread of its own", hops: farHops, run: farGoroutines},
	}
	for range rounds { // in turns, so that what else the machine does falls on all alike
		for i := range ways {
			w := &ways[i]
			begin := time.Now()
			if made := w.run(); made != w.hops {
				log.Fatalf("pingpong: %s: %d hops, want %d", w.name, made, w.hops)
			}
			w.took = append(w.took, float64(time.Since(begin).Nanoseconds())/float64(w.hops))
		}
	}
	fmt.Printf("\n   %-12s%-38s %8s %8s\n", "", "", "ns a hop", "ratio")
	base := median(ways[0].took)
	for _, w := range ways {
		m := median(w.took)
		fmt.Printf("   %-12s%-38s %8.0f %8.1f\n", w.name, w.how, m, m/base)
	}
	fmt.Printf(`
   Medians of %d rounds of %d and %d hops, making and ending the two included.

   On one worker a hop is one compare-and-swap, a place in a ring, and a switch of
   stacks. Between threads it goes through the kernel, which wakes one that sleeps on a
   futex; then fibers are about as dear as anything else. So the two belong on one
   worker, where Unpark puts them by itself: pin what has to stay with a thread, and
   nothing more.
`, rounds, hops, farHops)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

func check(err error) {
	if err != nil {
		log.Fatal("pingpong: ", err)
	}
}

func main() {
	fmt.Print("Ping and pong are green threads, or fibers: stacks that one kernel thread, a worker,\n" +
		"switches between. Who has the ball unparks the other and parks.\n\n")
	order()
	cost()
}
