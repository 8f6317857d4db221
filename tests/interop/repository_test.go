package interop

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A second of an open chunk and two flushes, with room to spare.
func settle() { time.Sleep(3 * time.Second) }

// Kubo 0.43.1 has no endpoint of its own for reports on its use; a distributor may build one in, and older ones had one.
func (k *kuboNode) hasAnEndpointForReports() {
	k.run("config", "Plugins.Plugins.telemetry.Config.Endpoint", "http://127.0.0.1:9/")
}

// Whether the daemon made the id that its reports bear; the first is due 15 minutes after the start.
func (k *kuboNode) reportsItsUse() bool {
	_, err := os.Stat(filepath.Join(k.repository, "telemetry_uuid"))
	return err == nil
}

// What `init --private` prints goes into sh as it is, for a repository fresh from `ipfs init`.
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
		// The environment, which otherwise turns reports off in these tests, says nothing here.
		kubo.start("LIBP2P_FORCE_PNET=1", "IPFS_TELEMETRY=")
		kubo.hasInLanTable(server.id())
		if kubo.reportsItsUse() {
			t.Fatal("a member of the private network reports to Kubo's makers")
		}
		if strings.Contains(kubo.logged(), "ERROR") {
			t.Fatalf("Kubo complains:\n%s", kubo.logged())
		}
		members = append(members, kubo)
	}
	if interval := members[0].run("config", "Provide.DHT.Interval"); interval != "10h" {
		t.Fatalf("Provide.DHT.Interval: %s", interval)
	}
	cid := members[0].add("for members only\n")
	members[0].run("routing", "provide", cid)
	if found := members[1].finds(cid); found != members[0].id() {
		t.Fatalf("found %q, wanted %s", found, members[0].id())
	}

	// Without the key nobody gets in.
	stranger := newKuboJoining(t)
	stranger.hasAnEndpointForReports()
	stranger.start("IPFS_TELEMETRY=")
	if !stranger.reportsItsUse() {
		t.Fatal("this Kubo reports nothing by itself, so that it is off above says nothing")
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
	// Other Kubo nodes go on as before: same peer id, same port.
	client := newKuboJoining(t, server.address())
	client.start()
	client.hasInLanTable(peer)
}

// An RSA identity, as Kubo made them before 0.5, and a swarm key: the other members notice nothing.
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
		t.Fatalf("%s is no RSA identity", peer)
	}
	server := newDhtstore(t)
	server.run("init", "--from-kubo", old.repository)
	server.start()
	if server.id() != peer {
		t.Fatalf("peer id %s, Kubo's was %s", server.id(), peer)
	}
	// By Kubo's bootstrap peer and with Kubo's swarm key.
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
