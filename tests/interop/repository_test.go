package interop

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// settle waits until all records are on disk. An open chunk is written within a second, and two flushes follow.
func settle() { time.Sleep(3 * time.Second) }

// hasAnEndpointForReports sets an endpoint for usage reports. Kubo 0.43.1 has none by default. Older versions had one,
// and a distributor may build one in.
func (k *kuboNode) hasAnEndpointForReports() {
	k.run("config", "Plugins.Plugins.telemetry.Config.Endpoint", "http://127.0.0.1:9/")
}

// reportsItsUse returns whether the daemon has made the id for its usage reports. The first report is due 15 minutes
// after the start.
func (k *kuboNode) reportsItsUse() bool {
	_, err := os.Stat(filepath.Join(k.repository, "telemetry_uuid"))
	return err == nil
}

// Runs the output of `init --private` in sh without changes, for a new repository of `ipfs init`.
func TestKuboJoinsAPrivateNetworkByThePrintedCommands(t *testing.T) {
	server := newDhtstore(t)
	script := server.run("init", "--private")
	server.start()
	var members []*kuboNode
	for range 2 {
		kubo := newKubo(t)
		file := filepath.Join(tempDir(t), "join.sh")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, ok := kubo.tryProgram("sh", nil, file); !ok {
			t.Fatalf("the printed commands failed: %s\n%s", out, script)
		}
		kubo.hasAnEndpointForReports()
		// The other tests turn reports off by an environment variable. Here it is unset.
		kubo.start("LIBP2P_FORCE_PNET=1", "IPFS_TELEMETRY=")
		kubo.hasInLanTable(server.id())
		if kubo.reportsItsUse() {
			t.Fatal("a member of the private network sends usage reports")
		}
		if strings.Contains(kubo.logged(), "ERROR") {
			t.Fatalf("Kubo logs an error:\n%s", kubo.logged())
		}
		members = append(members, kubo)
	}
	if interval := members[0].run("config", "Provide.DHT.Interval"); interval != "10h" {
		t.Fatalf("Provide.DHT.Interval: %s", interval)
	}
	cid := members[0].add("for members only\n")
	members[0].run("routing", "provide", cid)
	if found := members[1].finds(cid); found != members[0].id() {
		t.Fatalf("found %q, want %s", found, members[0].id())
	}

	// A node without the key cannot join.
	stranger := newKuboJoining(t)
	stranger.hasAnEndpointForReports()
	stranger.start("IPFS_TELEMETRY=")
	if !stranger.reportsItsUse() {
		t.Fatal("this Kubo sends no reports by default, so the check above proves nothing")
	}
	if out, ok := stranger.try("swarm", "connect", server.address()); ok {
		t.Fatalf("connected without the swarm key: %s", out)
	}
}

func TestAKuboRepositoryIsTakenOver(t *testing.T) {
	boot := newDhtstore(t)
	boot.start()
	kubo := newKuboJoining(t, boot.address())
	peer := kubo.id()
	kubo.start()
	server := newDhtstore(t)
	if out, ok := server.try("init", "--from-kubo", kubo.repository); ok || !strings.Contains(out, "runs") {
		t.Fatalf("a running Kubo must be refused: %s", out)
	}
	kubo.stop(syscall.SIGTERM)
	server.run("init", "--from-kubo", kubo.repository)
	if server.id() != peer {
		t.Fatalf("peer id %s, Kubo's was %s", server.id(), peer)
	}
	server.start()
	server.eventually("it joined by Kubo's bootstrap peers", func() bool { return server.hasInTable(boot.id()) })
	// For other Kubo nodes nothing changes: the peer id and the port are the same.
	client := newKuboJoining(t, server.address())
	client.start()
	client.hasInLanTable(peer)
}

// Takes over a node with a swarm key and an RSA identity, the kind that Kubo made before 0.5. For the other members
// nothing changes.
func TestAnRSANodeOfAPrivateNetworkIsTakenOver(t *testing.T) {
	first := newDhtstore(t)
	script := filepath.Join(tempDir(t), "join.sh")
	if err := os.WriteFile(script, []byte(first.run("init", "--private")), 0o600); err != nil {
		t.Fatal(err)
	}
	first.start()
	join := func(kubo *kuboNode) {
		t.Helper()
		if out, ok := kubo.tryProgram("sh", nil, script); !ok {
			t.Fatalf("the printed commands failed: %s", out)
		}
	}
	old := newKubo(t, "--algorithm=rsa", "--bits=2048")
	join(old)
	peer := old.id()
	if !strings.HasPrefix(peer, "Qm") {
		t.Fatalf("%s is not an RSA identity", peer)
	}
	server := newDhtstore(t)
	server.run("init", "--from-kubo", old.repository)
	server.start()
	if server.id() != peer {
		t.Fatalf("peer id %s, Kubo's was %s", server.id(), peer)
	}
	// It uses Kubo's bootstrap peer and swarm key.
	server.eventually("it is in the private network", func() bool { return server.hasInTable(first.id()) })
	member := newKubo(t)
	join(member)
	member.run("bootstrap", "rm", "--all")
	member.run("bootstrap", "add", server.address())
	member.start("LIBP2P_FORCE_PNET=1")
	member.hasInLanTable(peer)
	cid := member.add("for members only\n")
	member.run("routing", "provide", cid)
	server.eventually("it serves as a member", func() bool { return server.holds(cid, member.id()) != nil })
}
