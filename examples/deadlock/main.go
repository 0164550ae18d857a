// Command deadlock has five philosophers dine as green threads until nobody can
// go on, prints the report that the scheduler makes of it, and cures them.
package main

import (
	"errors"
	"fmt"
	"log"
	"runtime"
	"strings"

	"lwprt/sched"
)

const meals = 1000 // for each, when it goes well

// A fork is a lock made of Park and Unpark. One worker runs all philosophers,
// who change it only between two calls of the scheduler: nothing more is needed.
// It lies on the Go heap, so a fiber stores no pointer there; a handle is none.
type fork struct {
	taken bool
	wants sched.Fiber // the one neighbour who can
}

// take waits for a fork. why is a constant: the scheduler notes where its text is.
func (f *fork) take(why string) {
	for f.taken {
		f.wants = sched.Current()
		sched.Park(why)
	}
	f.taken = true
}

func (f *fork) put() {
	f.taken = false
	f.wants.Unpark() // nobody, the zero Fiber, is an error that does not matter here
	f.wants = sched.Fiber{}
}

type philosopher struct {
	name          string
	first, second *fork
	wait          [2]string // why, for the first and the second
	meals, eaten  int
}

// dine runs on a fiber.
func dine(p *philosopher) {
	for range p.meals {
		takeFirst(p)
		sched.Yield() // a thought between the forks: all take their first
		takeSecond(p)
		p.eaten++
		p.second.put()
		p.first.put()
		sched.Yield()
	}
}

//go:noinline
func takeFirst(p *philosopher) { p.first.take(p.wait[0]) }

//go:noinline
func takeSecond(p *philosopher) { p.second.take(p.wait[1]) }

var (
	names = [...]string{"Plato", "Hypatia", "Socrates", "Voltaire", "Arendt"}
	forks = [...]string{"fork 1", "fork 2", "fork 3", "fork 4", "fork 5"}
)

// table lays the table: philosopher i sits between forks i and i+1. If ordered,
// everybody takes the fork of the lower number first.
func table(ordered bool) (ps [len(names)]philosopher) {
	on := new([len(forks)]fork)
	for i := range ps {
		a, b := i, (i+1)%len(forks)
		if ordered && a > b {
			a, b = b, a
		}
		ps[i] = philosopher{name: names[i], first: &on[a], second: &on[b], wait: [2]string{forks[a], forks[b]}, meals: meals}
	}
	return ps
}

type party struct {
	guests []philosopher
	failed bool
}

// seat runs on a fiber: what it spawns is ready, and none of them runs before
// it has spawned all.
func seat(p *party) {
	for i := range p.guests {
		g := &p.guests[i]
		if _, err := sched.GoAttr(dine, g, sched.Attr{Name: g.name, Detached: true}); err != nil {
			p.failed = true
		}
	}
}

// serve has all dine, and returns the scheduler and what Wait says in the end.
func serve(guests []philosopher) (*sched.Scheduler, error) {
	s, err := sched.New(sched.Config{Workers: 1})
	check(err)
	p := &party{guests: guests}
	f, err := sched.Spawn(s, seat, p)
	check(err)
	check(f.Join())
	if p.failed {
		log.Fatal("deadlock: a fiber could not be made")
	}
	return s, s.Wait()
}

func main() {
	fmt.Printf("Five philosophers, five forks, and everybody needs two. Each is a green thread: it\n"+
		"takes its forks, eats, and puts them back, %d times.\n\n", meals)

	fmt.Print("1. Everybody takes the left fork first. Wait returns:\n\n")
	starving := table(false)
	s, err := serve(starving[:])
	var dead *sched.DeadlockError
	if !errors.As(err, &dead) {
		log.Fatal("deadlock: they have not starved: ", err)
	}
	fmt.Println(indent(err.Error()))

	fmt.Print(`
   Wait did not hang, because the scheduler can tell: its workers are idle, no timer
   runs, no call that blocks is under way, and no goroutine has said, by Hold, that it
   is going to wake somebody. What is parked then stays parked.
   A line has the fiber, its name, what it does and what for (the text that Park was
   given), how long, the worker it ran on last, and how much of its stack was ever used.
   Below is where it stands, the innermost call first. As data, the same says:

`)
	for _, f := range dead.Fibers {
		fmt.Printf("   %-9s has eaten %d, waits for %s in %s\n", f.Name, eaten(starving[:], f.Name), f.Reason, caller(f))
	}
	fmt.Print(`
   Each holds a fork and waits for the next one's: a circle. Close ends fibers that
   nothing can wake, and returns the same report:

`)
	err = s.Close()
	if !errors.As(err, &dead) {
		log.Fatal("deadlock: Close: ", err)
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	fmt.Printf("   %s\n\n", line)

	fmt.Print("2. Everybody takes the fork of the lower number first. Wait returns:\n\n")
	dining := table(true)
	s, err = serve(dining[:])
	fmt.Printf("   %v\n\n", err)
	check(err)
	for _, p := range dining {
		fmt.Printf("   %-9s has eaten %d\n", p.name, p.eaten)
	}
	check(s.Close())
	fmt.Printf(`
   Only %s, between forks %d and 1, does anything else than before: the right one
   first. Who waits for a fork now holds only lower ones, so there is no circle, and who
   holds the highest that is taken can eat. It is so with locks of any kind that all
   take in one order, of fibers, goroutines or threads.
`, names[len(names)-1], len(forks))
}

func eaten(ps []philosopher, name string) int {
	for _, p := range ps {
		if p.name == name {
			return p.eaten
		}
	}
	return -1
}

// caller returns the function of this program that f stands in, but for take.
func caller(f sched.FiberInfo) string {
	frames := runtime.CallersFrames(f.Trace)
	for {
		frame, more := frames.Next()
		if name, ok := strings.CutPrefix(frame.Function, "main."); ok && !strings.HasPrefix(name, "(") || !more {
			return name
		}
	}
}

func indent(s string) string { return "   " + strings.ReplaceAll(s, "\n", "\n   ") }

func check(err error) {
	if err != nil {
		log.Fatal("deadlock: ", err)
	}
}
