package sparkrl;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Supplier;
import main.scala.scienceworld.runtime.SimplifierProcessor;
import scala.Option;
import scala.Tuple3;
import scala.collection.JavaConverters;
import scienceworld.actions.PossibleAction;
import scienceworld.input.ActionDefinitions;
import scienceworld.input.InputMatch;
import scienceworld.input.InputParser;
import scienceworld.runtime.AgentInterface;
import scienceworld.runtime.pythonapi.PythonInterface;
import scienceworld.struct.EnvObject;
import scienceworld.tasks.goals.GoalSequence;
import util.UniqueIdentifier;

/**
 * One episode of ScienceWorld among many in a process.
 *
 * <p>What the engine keeps for the whole process (the counter of object ids, the simplifications that are on, the random
 * generator) belongs to the world at work: it is put back before each call and taken away after it. Asking what can be done
 * changes nothing, and neither does an action that is refused.
 *
 * <p>The engine's agent interface is the whole of a world. Its Python interface, which keeps a history and tables of all tasks
 * and describes the room before each step, is only used to load.
 */
final class World {
    private static final String UNKNOWN = "No known action matches that input.";
    /** What the engine's Python interface says when an action has no text of its own. */
    private static final String SILENT =
            "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. ";

    /** The simplifications that are on in the process. */
    private static String simplified = null;

    private final AgentInterface engine;
    private final boolean stock;
    private final long seed;
    private Chance chance;
    private long ids;
    /** Steps that were carried out: what the seed of the next one is made of. */
    private int steps;

    private World(AgentInterface engine, boolean stock, long seed, Chance chance, long ids, int steps) {
        this.engine = engine;
        this.stock = stock;
        this.seed = seed;
        this.chance = chance;
        this.ids = ids;
        this.steps = steps;
    }

    /** The start of a task. With {@code stock} the generator runs on from step to step as in the engine itself. */
    static World load(
            PythonInterface loader, String task, int variation, String simplifications, boolean stock, long seed) {
        String error = loader.load(task, variation, simplifications, false);
        if (!error.isEmpty()) {
            throw new IllegalArgumentException(error);
        }
        AgentInterface engine = loader.agentInterface().get();
        simplified = engine.simplificationStr();
        return new World(engine, stock, seed, Chance.now(), UniqueIdentifier.count(), 0);
    }

    World fork() throws InstantiationException {
        return new World(Copier.copy(engine), stock, seed, chance, ids, steps);
    }

    /** Answer, score (0 to 1, negative when the task is lost), completed, ticks, known, and what {@link #sight} needs. */
    List<String> step(String action) {
        enter();
        Chance before = Chance.now();
        long count = ids;
        if (!stock) {
            Chance.seed(mix(seed, steps));
        }
        String said = action.trim().toLowerCase();
        boolean asked = engine.inputParser().isInAmbiguousState();
        String text;
        boolean known = true;
        if (said.equals("help")) {
            text = "Possible actions: \n\t" + String.join("\n\t", templates());
        } else if (said.equals("objects")) {
            text = "Possible object references: \n\t" + String.join("\n\t", objects(false));
        } else if (said.equals("task")) {
            text = "Task description:\n" + engine.getTaskDescription();
        } else if (asked && !stock && !isChoice(said) && !isAction(action)) {
            // The engine drops its question at whatever is no number. What is refused changes nothing, so here it stays.
            known = false;
            text = UNKNOWN + " Enter a number from 0 to " + (engine.inputParser().getNumAmbiguousMatches() - 1) + ".";
        } else {
            if (stock) {
                // What the engine's Python interface does before each step, since some of it draws from the generator.
                engine.freeActionLook();
                engine.freeActionInventory();
            }
            Tuple3<String, Object, Object> answer = engine.step(asked && isChoice(said) ? said : action);
            if (stock) {
                InputParser.getPossibleReferents(room(), room());
            }
            known = !answer._1().equals(UNKNOWN);
            text = answer._1().isEmpty() ? SILENT : answer._1();
            if (known) {
                steps++;
                before = Chance.now();
                count = UniqueIdentifier.count();
            }
        }
        before.restore();
        UniqueIdentifier.count_$eq(count);
        List<String> reply = report(text, known);
        leave();
        return reply;
    }

    private List<String> report(String text, boolean known) {
        GoalSequence goals = engine.task().goalSequence();
        int all = goals.subgoals().length + goals.optionalUnorderedSubgoalsCompleted().length;
        return List.of(
                text,
                Double.toString(goals.score()),
                Boolean.toString(goals.isCompleted()),
                Integer.toString(engine.getCurIterations()),
                Boolean.toString(known),
                Double.toString(all == 0 ? 0.0 : (double) reached(goals) / all),
                engine.isInErrorState() ? "error: " + engine.getErrorStateMessage() : "",
                room().name(),
                undisturbed(engine::freeActionInventory));
    }

    private static int reached(GoalSequence goals) {
        int reached = goals.curSubgoalIdx(); // those in order; the others can be left out
        for (boolean done : goals.optionalUnorderedSubgoalsCompleted()) {
            reached += done ? 1 : 0;
        }
        return reached;
    }

    /** All actions that are valid here; while the engine asks which action was meant, the numbers of its question. */
    List<String> actions() {
        enter();
        List<String> found = undisturbed(engine.inputParser().isInAmbiguousState() ? this::choices : this::valid);
        leave();
        return found;
    }

    private List<String> choices() {
        return Arrays.asList(engine.getValidActionsAmbiguousState());
    }

    /** The engine's list, without what its parser refuses: things that are shut away, a tenth of the list. */
    private List<String> valid() {
        EnvObject room = room();
        EnvObject[] all = array(InputParser.collectObjects(engine.universe(), true));
        EnvObject[] seen = array(InputParser.collectObjects(room, false));
        Set<EnvObject> near = new HashSet<>(Arrays.asList(array(InputParser.collectAccessibleObjects(room, true))));
        near.addAll(Arrays.asList(array(InputParser.collectAccessibleObjects(engine.agent(), true))));
        EnvObject[] within = Arrays.stream(seen).filter(near::contains).toArray(EnvObject[]::new);
        InputParser parser = engine.inputParser();
        PossibleAction[] found =
                ActionDefinitions.mkPossibleActions(
                        engine.agent(),
                        within,
                        all,
                        parser.getAllUniqueReferentsLUTObjList(seen, room, true, true),
                        parser.getAllUniqueReferentsLUTObjList(all, room, true, true));
        return Arrays.stream(found).map(PossibleAction::mkHumanReadableStr).toList();
    }

    private static EnvObject[] array(scala.collection.mutable.Set<EnvObject> objects) {
        return JavaConverters.setAsJavaSet(objects).toArray(EnvObject[]::new);
    }

    /** The forms of actions, an empty line, and the objects in sight; only numbers while the engine asks what was meant. */
    List<String> sight() {
        enter();
        List<String> lines = new ArrayList<>();
        if (engine.inputParser().isInAmbiguousState()) {
            lines.addAll(choices());
        } else {
            lines.addAll(templates());
            lines.add("");
            lines.addAll(undisturbed(() -> objects(true)));
        }
        leave();
        return lines;
    }

    private List<String> templates() {
        // Said as the engine's list of valid actions says them; its parser takes both.
        return Arrays.stream(engine.getPossibleActions())
                .map(form -> form.replaceFirst("^(go|teleport) OBJ$", "$1 to OBJ"))
                .toList();
    }

    /** Names of what is in sight (and carried), told apart by where it is; the engine's own list can end the process. */
    private List<String> objects(boolean carried) {
        EnvObject room = room();
        Set<EnvObject> seen = new LinkedHashSet<>(Arrays.asList(array(InputParser.collectAccessibleObjects(room, false))));
        if (carried) {
            EnvObject inventory = engine.agent().getInventoryContainer();
            seen.addAll(Arrays.asList(array(InputParser.collectAccessibleObjects(inventory, false))));
            seen.remove(inventory);
        }
        EnvObject[] all = seen.toArray(EnvObject[]::new);
        return Arrays.stream(engine.inputParser().getAllUniqueReferentsObjList(all, room, false, false))
                .map(pair -> pair._1())
                .toList();
    }

    private EnvObject room() {
        return engine.agent().getContainer().get();
    }

    private boolean isChoice(String said) {
        return said.matches("\\d{1,6}") && Integer.parseInt(said) < engine.inputParser().getNumAmbiguousMatches();
    }

    /** Whether the engine would take this for an action if it had not asked a question. */
    private boolean isAction(String input) {
        InputParser parser = engine.inputParser();
        Option<InputMatch[]> question = parser.lastAmbiguousMatches();
        String answer =
                parser.parse(
                                input,
                                room(),
                                engine.universe(),
                                engine.agent(),
                                engine.objMonitor(),
                                engine.task().goalSequence(),
                                room())
                        ._3();
        parser.lastAmbiguousMatches_$eq(question);
        return !answer.equals(UNKNOWN);
    }

    private void enter() {
        UniqueIdentifier.count_$eq(ids);
        chance.restore();
        if (!engine.simplificationStr().equals(simplified)) {
            simplified = engine.simplificationStr();
            SimplifierProcessor.parseSimplificationStr(simplified);
        }
    }

    private void leave() {
        ids = UniqueIdentifier.count();
        chance = Chance.now();
    }

    /** Ask without consequences: the generator is seeded for the question, and put back. */
    private <T> T undisturbed(Supplier<T> question) {
        Chance before = Chance.now();
        long count = UniqueIdentifier.count();
        Chance.seed(mix(~seed, steps));
        T answer = question.get();
        before.restore();
        UniqueIdentifier.count_$eq(count);
        return answer;
    }

    /** SplitMix64's finaliser: seeds that follow one another would start the generator with nearly equal numbers. */
    private static long mix(long seed, long step) {
        long value = seed + (step + 1) * 0x9E3779B97F4A7C15L;
        value = (value ^ (value >>> 30)) * 0xBF58476D1CE4E5B9L;
        value = (value ^ (value >>> 27)) * 0x94D049BB133111EBL;
        return value ^ (value >>> 31);
    }
}
