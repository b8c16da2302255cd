package sparkrl;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import scienceworld.runtime.pythonapi.PythonInterface;
import scienceworld.tasks.TaskMaker1;
import scienceworld.tasks.specifictasks.TaskParametric;

/**
 * Many worlds in one process, played through its standard input and output.
 *
 * <p>A message is a count and as many texts, each a length in bytes and UTF-8. A request starts with its name; a reply with
 * "ok" or "error". Requests are answered one at a time, in order. The process ends with its standard input, even in the midst
 * of a request: nobody can be waiting for the answer then.
 */
public final class Host {
    /** Starts of tasks that are kept, so that a task started again is copied and not built. */
    private static final int KEPT_STARTS = 32;

    private final PythonInterface loader = new PythonInterface();
    private final boolean exact = Copier.exact();
    private final Map<String, World> worlds = new HashMap<>();
    private final Map<String, World> starts =
            new LinkedHashMap<>(16, 0.75f, true) {
                @Override
                protected boolean removeEldestEntry(Map.Entry<String, World> eldest) {
                    return size() > KEPT_STARTS;
                }
            };

    private Host() {}

    /** Serve until standard input ends. */
    public static void main(String[] arguments) throws Exception {
        DataOutputStream replies =
                new DataOutputStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16));
        // The engine tells standard output about each step. Replaced before its first class is loaded.
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        BlockingQueue<List<String>> requests = new LinkedBlockingQueue<>();
        Thread reader = new Thread(() -> read(requests), "requests");
        reader.setDaemon(true);
        reader.start();
        ProcessHandle.current().parent().ifPresent(parent -> parent.onExit().thenRun(Host::end));
        Host host = new Host();
        while (true) {
            write(replies, host.answer(requests.take()));
        }
    }

    private static void end() {
        Runtime.getRuntime().halt(0);
    }

    private static void read(BlockingQueue<List<String>> requests) {
        try {
            DataInputStream input = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
            while (true) {
                int count = input.readInt();
                List<String> request = new ArrayList<>(count);
                for (int i = 0; i < count; i++) {
                    request.add(new String(input.readNBytes(input.readInt()), StandardCharsets.UTF_8));
                }
                requests.add(request);
            }
        } catch (IOException ended) {
            end();
        }
    }

    private static void write(DataOutputStream output, List<String> reply) throws IOException {
        output.writeInt(reply.size());
        for (String text : reply) {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            output.writeInt(bytes.length);
            output.write(bytes);
        }
        output.flush();
    }

    private List<String> answer(List<String> request) {
        List<String> reply = new ArrayList<>();
        try {
            reply.add("ok");
            reply.addAll(carryOut(request));
        } catch (VirtualMachineError error) {
            // Out of memory or of stack: the state of the worlds is not known any more.
            Runtime.getRuntime().halt(3);
        } catch (Throwable error) {
            reply.clear();
            reply.add("error");
            reply.add(error.toString());
        }
        return reply;
    }

    private List<String> carryOut(List<String> request) throws Exception {
        List<String> rest = request.subList(1, request.size());
        switch (request.get(0)) {
            case "hello":
                return List.of(System.getProperty("java.version"), Boolean.toString(exact));
            case "tasks":
                return tasks();
            case "describe":
                return describe(rest.get(0));
            case "gold":
                String error = loader.load(rest.get(0), Integer.parseInt(rest.get(1)), rest.get(2), true);
                if (!error.isEmpty()) {
                    throw new IllegalArgumentException(error);
                }
                return new ArrayList<>(loader.getGoldActionSequence());
            case "load":
                return load(rest);
            case "fork":
                worlds.put(rest.get(1), world(rest.get(0)).fork());
                return List.of();
            case "step":
                return world(rest.get(0)).step(rest.get(1));
            case "actions":
                return world(rest.get(0)).actions();
            case "sight":
                return world(rest.get(0)).sight();
            case "drop":
                rest.forEach(worlds::remove);
                return List.of();
            case "memory":
                System.gc();
                Runtime runtime = Runtime.getRuntime();
                return List.of(Long.toString(runtime.totalMemory() - runtime.freeMemory()), Integer.toString(worlds.size()));
            default:
                throw new IllegalArgumentException("no request is called " + request.get(0));
        }
    }

    private World world(String id) {
        World world = worlds.get(id);
        if (world == null) {
            throw new IllegalStateException("no world " + id);
        }
        return world;
    }

    /** Start a task and look around: id, task, variation, simplifications, "stock" or not, seed. */
    private List<String> load(List<String> how) throws InstantiationException {
        String key = String.join("\n", how.subList(1, how.size()));
        World start = starts.get(key);
        if (start == null) {
            start =
                    World.load(
                            loader,
                            how.get(1),
                            Integer.parseInt(how.get(2)),
                            how.get(3),
                            how.get(4).equals("stock"),
                            Long.parseLong(how.get(5)));
        }
        if (exact) {
            starts.put(key, start);
            start = start.fork();
        }
        worlds.put(how.get(0), start);
        return start.step("look around");
    }

    private List<String> tasks() {
        List<String> found = new ArrayList<>();
        for (String name : loader.getTaskNames()) {
            found.add(name);
            found.add(Integer.toString(loader.getTaskMaxVariations(name)));
        }
        return found;
    }

    /** The sentence of each variation of a task. */
    private static List<String> describe(String name) {
        TaskParametric task = new TaskMaker1().getTask(name).get();
        List<String> found = new ArrayList<>();
        for (int variation = 0; variation < task.numCombinations(); variation++) {
            Chance.seed(variation); // some sentences name two things in an order that is drawn
            found.add(task.setupGoals(variation).description().trim());
        }
        return found;
    }
}
