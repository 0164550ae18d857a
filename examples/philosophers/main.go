// Command philosophers has five philosophers dine as green threads with forks
// that are locks: into a deadlock, which its report explains, and then with each
// of three cures.
package main

import (
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"lwprt/sched"
)

const meals = 1000 // for each, when it goes well

// A table has the forks, and what the cures need.
type table struct {
	forks  [5]sched.Mutex
	seats  sched.Semaphore // of the second cure
	seated sched.Barrier   // has all of them hold a fork, for the deadlock
	guests [5]philosopher
}

type philosopher struct {
	t     *table
	i     int // between forks i and i+1
	eaten int
	tries int // that were given up, in the third cure
}

var names = [...]string{"Plato", "Hypatia", "Socrates", "Voltaire", "Arendt"}

func (p *philosopher) left() *sched.Mutex  { return &p.t.forks[p.i] }
func (p *philosopher) right() *sched.Mutex { return &p.t.forks[(p.i+1)%len(p.t.forks)] }

// eat is what needs both forks. Others run meanwhile, and find them taken.
func (p *philosopher) eat() {
	p.eaten++
	sched.Yield()
}

// starve: left, then right. The barrier makes sure that it goes wrong at once.
func starve(p *philosopher) {
	p.left().Lock()
	p.t.seated.Wait()
	p.right().Lock()
	p.eat()
	p.right().Unlock()
	p.left().Unlock()
}

// inOrder: the fork of the lower number first.
func inOrder(p *philosopher) {
	first, second := p.left(), p.right()
	if p.i == len(names)-1 {
		first, second = second, first
	}
	for range meals {
		first.Lock()
		sched.Yield()
		second.Lock()
		p.eat()
		second.Unlock()
		first.Unlock()
	}
}

// fourAtOnce: left, then right, but one of the five always waits for a seat.
func fourAtOnce(p *philosopher) {
	for range meals {
		p.t.seats.Acquire(1)
		p.left().Lock()
		sched.Yield()
		p.right().Lock()
		p.eat()
		p.right().Unlock()
		p.left().Unlock()
		p.t.seats.Release(1)
	}
}

// politely: who does not get the right fork in time puts the left one back, and
// waits for a moment, each for a different one.
func politely(p *philosopher) {
	for range meals {
		for pause := time.Duration(p.i+1) * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
			p.left().Lock()
			sched.Yield()
			if p.right().LockWithin(sched.For(10*time.Microsecond)) == nil {
				break
			}
			p.left().Unlock()
			p.tries++
			sched.Sleep(pause)
		}
		p.eat()
		p.right().Unlock()
		p.left().Unlock()
	}
}

// serve has all dine, and returns the table, the scheduler, and what Wait says.
func serve(how func(*philosopher)) (*table, *sched.Scheduler, error) {
	s, err := sched.New(sched.Config{Workers: 2})
	check(err)
	t := new(table)
	t.seated.Init(len(names))
	t.seats.Release(len(names) - 1)
	for i := range t.guests {
		t.guests[i] = philosopher{t: t, i: i}
		_, err := sched.SpawnAttr(s, how, &t.guests[i], sched.Attr{Name: names[i], Detached: true})
		check(err)
	}
	return t, s, s.Wait()
}

// cure has all dine until everybody has had enough.
func cure(how func(*philosopher)) *table {
	start := time.Now()
	t, s, err := serve(how)
	check(err)
	check(s.Close())
	for i := range t.guests {
		if t.guests[i].eaten != meals {
			log.Fatalf("philosophers: %s has eaten %d", names[i], t.guests[i].eaten)
		}
	}
	fmt.Printf("   Everybody has eaten %d times. It took %v.\n", meals, time.Since(start).Round(time.Millisecond))
	return t
}

func main() {
	fmt.Print("Five philosophers, five forks between them, and everybody needs two. A fork is a\n" +
		"sched.Mutex, a philosopher a green thread; two workers run them.\n\n")

	fmt.Print("1. All take the left fork, and then the right one. Wait returns:\n\n")
	_, s, err := serve(starve)
	var dead *sched.DeadlockError
	if !errors.As(err, &dead) {
		log.Fatal("philosophers: they have not starved: ", err)
	}
	for _, f := range dead.Fibers {
		fmt.Printf("   %-9s is %s, for: %s\n", f.Name, f.State, f.Reason)
	}
	fmt.Printf("\n   The error says where each of them stands, the innermost call first. The first:\n\n   %s",
		strings.ReplaceAll(dead.Fibers[0].String(), "\n", "\n   "))
	if err := s.Close(); !errors.Is(err, sched.ErrDeadlock) {
		log.Fatal("philosophers: Close: ", err)
	}
	fmt.Print(`
   Four things had to come together: a fork is one philosopher's at a time; who has one
   keeps it while he waits for another; nobody takes it from him; and they wait in a
   circle. Each cure does away with one of them.

2. No circle: all take the fork of the lower number first.

`)
	cure(inOrder)
	fmt.Print(`   The last of them begins at the right. Who waits holds lower forks only, so that the
   one with the highest can always eat. It costs nothing while it runs, and needs an
   order that everybody knows of.

3. No circle either: a sched.Semaphore lets four of the five to the table.

`)
	cure(fourAtOnce)
	fmt.Print(`   Four cannot hold all five forks and each wait for another. It needs no order, but
   somebody who knows the table.

4. Nobody keeps a fork while he waits, at least not for long: LockWithin a limit.

`)
	t := cure(politely)
	tries := 0
	for i := range t.guests {
		tries += t.guests[i].tries
	}
	fmt.Printf(`   %d times somebody put his fork back, and slept, each time twice as long. It needs to
   know nothing of the others. But work is thrown away, and if all did it in step they
   would starve with busy hands; that they do not rests on the times being different.
`, tries)
}

func check(err error) {
	if err != nil {
		log.Fatal("philosophers: ", err)
	}
}
